"""Everything that is fed, by name."""

from tests.fuzz.targets import configs, runs, texts, weights

TARGETS = {target.name: target for module in (configs, weights, texts, runs) for target in module.TARGETS}
