"""What `tlrun --help` prints."""

HELP = """\
tlrun: transfer-learning experiments. One source -> target pair, one backbone, one method.

  tlrun [key=value ...]                    train, evaluate, write a run folder with report.html
  tlrun -m key=a,b,c [key=value ...]       every combination, with a leaderboard (sweep)
  tlrun resume RUN_DIR|SWEEP_DIR           go on where it stopped, exactly (of a sweep: every job)
  tlrun reproduce RUN_DIR [key=value ...]  run its saved config again; exit 1 on any difference
  tlrun evaluate RUN_DIR [key=value ...]   evaluate the trained model, also on other data
  tlrun predict RUN_DIR IMAGE|FOLDER ...   label and confidence of your images
  tlrun export RUN_DIR --to torch_export|onnx
  tlrun features RUN_DIR|key=value ...     features of all images as .npz, for other tools
  tlrun rank key=value backbone=a,b ...    which net and stage suits the target: scores, no training
  tlrun report RUN_DIR|SWEEP_DIR ...       write the page or the leaderboard again
  tlrun report SWEEP_A SWEEP_B --compare FOLDER    one leaderboard over all of them
  tlrun list [methods|data|backbones|experiments|recipes|launchers|searches ...]
  tlrun prepare data=...                   download, verify and build a data set

Examples
  tlrun                                    DANN on the bundled digits, about three minutes
  tlrun method=dann data=mnist_mnistm
  tlrun method=source_only data=folder data.source.root=photos data.target.root=sketches
  tlrun -m method=source_only,dann seed=0,1,2
  tlrun -m method=dann 'seed=range(8)' launcher=joblib     several jobs at once; on Slurm: submitit
  tlrun -m method=dann search=optuna search.trials=20      look for a good setting, without labels
  tlrun experiment=mnist_mnistm/dann       a published row with all its settings
  tlrun trainer.steps=500 optimizer=sgd optimizer.lr=0.01
  tlrun --config-dir my_conf method=mine   your own method, `_target_: my_methods.Mine`

Keys (all of them, with values: tlrun --cfg job)
  data, backbone, method, optimizer, schedule, trainer, select, logger, recipe, experiment,
  launcher, search       groups: `tlrun list` names the options, `method.trade_off=0.5` sets one key
  seed                   one number decides order, augmentation, weights and splits
  target_labels          auto | none | all | labels per class that the method may see
  target_images          all | none
  batch_norm             auto | joint | separate_forward | per_domain | frozen
  trainer.*              steps or epochs, batch_size, device, devices, nodes, threads, precision,
                         compile, eval_every, checkpoint_every ...
  phases.NAME.*          steps, optimizer, schedule, frozen of one phase
  select, selectors      which checkpoint is reported; which others are kept
  dry_run=true           build all, show shapes and parameters, run one batch
  hydra.run.dir=FOLDER   where the run folder goes (hydra.sweep.dir for -m)

Flags
  -m, --multirun    -c, --cfg job    --config-dir FOLDER    --debug (tracebacks)    --hydra-help
  --trust MODULE    of a verb: your own module, which the run's files may name (docs/security.md)
  eval "$(tlrun -sc install=bash)"         tab completion (also zsh, fish)

Exit codes: 0 fine, 1 the run failed, 2 the command was wrong, 130/143 interrupted.
`tlrun VERB --help` explains a verb."""
