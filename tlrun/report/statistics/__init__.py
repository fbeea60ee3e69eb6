"""Groups, differences and cautions: what the figures of runs say."""
