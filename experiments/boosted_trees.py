r"""Stacked gradient-boosted trees: by LRA-E's targets, by target propagation, and unstacked.

    python experiments/boosted_trees.py
    python experiments/boosted_trees.py --dataset=mnist --data_dir=FOLDER

Layers of trees have no derivatives to send an error through. LRA-E needs none: the error of the
layer above, carried down by a matrix E, displaces a layer's pre-activity, and the layer grows a
tree towards the target. Target propagation (Feng, Yu and Zhou 2018, "Multi-layered gradient
boosting decision trees") needs a second ensemble for each layer, its inverse, grown beside it.

    h^l = λ Σ_t tree_t(z^{l-1})     z^l = tanh(h^l)     softmax(W z + b) on top
    y^l = tanh(h^l - β E e^{l+1})   e^l = -2 (y^l - z^l)                        LRA-E
    y^{l-1} = G^l(y^l)              G^l grown so that G^l(F^l(z + ε)) = z + ε   target propagation

A tree answers for all units of a layer at once. OUT_DIR/boosted_trees/DATASET.json has accuracies
and seconds over the seeds; "frozen" layers stay as they start, and only the softmax learns.

Two measures by layer, after the first round and the last, say what it lacks, on the test part.
"at_target" is the output's loss with a layer's activities at their targets, as a share of the loss
as it is: below 1, targets point the right way. "r2" is how much of the displacements that targets
ask for a tree grown on the training part explains: near 0, no tree follows them to new examples.
"""

import lrajax_command

if __name__ == "__main__":
    lrajax_command.listen()  # before the seconds that imports take

import copy
import time
from typing import Any

import numpy as np
import sklearn
from absl import flags
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor
from threadpoolctl import threadpool_limits

from lrajax import data
from lrajax.checks import at_least, one_of
from lrajax.runs import records
from lrajax.runs.commands import commandline

SETS = ("digits", "breast_cancer", "wine", "synthetic", "mnist")
RULES = ("lra_e", "lra_e_learned", "target_propagation", "frozen", "ensemble")

FLAGS = flags.FlagValues()
DATASET = flags.DEFINE_list(
    "dataset", list(SETS[:-1]), f"{', '.join(SETS)}, with commas", flag_values=FLAGS
)
SEEDS = flags.DEFINE_integer(
    "seeds", 5, "seeds, each with its own split and trees", flag_values=FLAGS
)
ROUNDS = flags.DEFINE_integer("rounds", 40, "trees that every layer grows", flag_values=FLAGS)
DATA_DIR = commandline.define_path("data_dir", None, "folder with mnist/", FLAGS)
OUT_DIR = commandline.define_path("out_dir", "results", "folder for the results", FLAGS)

WIDTH, LAYERS, DEPTH = 32, 2, 5  # units of a layer of trees, such layers, splits in a row
RATE = 0.3  # λ of a tree
BETA = 0.5
SOFTMAX_RATE, SOFTMAX_STEPS = 0.5, 20  # full-batch steps of the softmax in a round
TARGET_RATE = 1.0  # of the topmost hidden target, times the number of examples
NOISE = 0.3  # of the inverses' corrupted input, as a share of its deviation
MNIST_EXAMPLES = 10_000


class Trees:
    """An additive ensemble with several outputs."""

    def __init__(self, rng: np.random.Generator):
        """An ensemble of no trees, whose output is 0."""
        self.rng, self.trees, self.rates = rng, [], []

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The output, [n, width]."""
        outputs = (
            rate * tree.predict(x) for rate, tree in zip(self.rates, self.trees, strict=True)
        )
        return sum(outputs)

    def grow(self, x: np.ndarray, residual: np.ndarray, rate: float = RATE) -> None:
        """Adds a tree that takes the output `rate` of the way along the residual."""
        seed = int(self.rng.integers(2**31))
        tree = DecisionTreeRegressor(max_depth=DEPTH, max_features=0.5, random_state=seed)
        self.trees.append(tree.fit(x, residual))
        self.rates.append(rate)


class Stack:
    """Layers of trees under a softmax."""

    def __init__(self, x: np.ndarray, y: np.ndarray, rng: np.random.Generator):
        """Layers that start as random projections of what is below, learned by one tree."""
        self.rng, self.labels = rng, np.eye(y.max() + 1)[y]
        self.layers, self.inverses, self.z = [], [], [x]
        for _ in range(LAYERS):
            below = self.z[-1]
            scale = np.linalg.norm(below - below.mean(0)) / np.sqrt(len(below))
            projection = rng.normal(size=(below.shape[1], WIDTH)) / scale
            self.layers.append(Trees(rng))
            self.layers[-1].grow(below, (below - below.mean(0)) @ projection, rate=1.0)
            self.inverses.append(Trees(rng))
            self.z.append(np.tanh(self.layers[-1](below)))
        for inverse, z, below in zip(self.inverses, self.z[1:], self.z, strict=False):
            inverse.grow(z, below, rate=1.0)
        classes = self.labels.shape[1]
        self.w, self.b = np.zeros((WIDTH, classes)), np.zeros(classes)
        # E of the softmax follows Wᵀ as in LRA-E; those of the trees have no W to follow.
        self.e = [rng.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH) for _ in range(LAYERS - 1)]
        self.e_top = rng.normal(size=(classes, WIDTH)) / np.sqrt(classes)

    def hidden(self, x: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Pre-activities of the layers, and activities with the input first."""
        h, z = [], [x]
        for layer in self.layers:
            h.append(layer(z[-1]))
            z.append(np.tanh(h[-1]))
        return h, z

    def probabilities(self, z: np.ndarray) -> np.ndarray:
        """The softmax's answer."""
        logits = z @ self.w + self.b
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def accuracy(self, x: np.ndarray, y: np.ndarray) -> float:
        """In %."""
        return 100 * float((self.probabilities(self.hidden(x)[1][-1]).argmax(axis=1) == y).mean())

    def learn_softmax(self, z: np.ndarray) -> None:
        """A few steps of gradient descent, which the softmax's E follows."""
        for _ in range(SOFTMAX_STEPS):
            error = (self.probabilities(z) - self.labels) / len(z)
            step = SOFTMAX_RATE * z.T @ error
            self.w -= step
            self.e_top -= step.T
            self.b -= SOFTMAX_RATE * error.sum(axis=0)

    def round(self, x: np.ndarray, rule: str) -> None:
        """One round: the softmax learns, and every layer grows by a tree."""
        h, z = self.hidden(x)
        self.learn_softmax(z[-1])
        if rule == "frozen":
            return
        targets = self.targets(h, z, self.labels, rule)
        for layer, below, wanted in zip(self.layers, z, displacements(h, targets), strict=False):
            layer.grow(below, wanted)

    def targets(self, h, z, labels: np.ndarray, rule: str) -> list[np.ndarray]:
        """The rule's, first layer first; target propagation's inverses grow by a tree each."""
        error = self.probabilities(z[-1]) - labels
        if rule == "target_propagation":
            return self.inverted(z, z[-1] - TARGET_RATE * error @ self.w.T)
        return self.aligned(h, z, error, learned=rule == "lra_e_learned")

    def diagnose(self, x: np.ndarray, y: np.ndarray, rule: str) -> dict[str, list[float]]:
        """What a rule's targets of new examples are worth, by layer, first layer first."""
        stack = copy.deepcopy(self)  # so that no inverse of this one grows
        seen_h, seen_z = stack.hidden(self.z[0])
        seen = displacements(seen_h, stack.targets(seen_h, seen_z, self.labels, rule))
        labels = np.eye(self.labels.shape[1])[y]
        h, z = stack.hidden(x)
        targets = stack.targets(h, z, labels, rule)
        wanted, before = displacements(h, targets), self.loss(z[-1], labels)
        found: dict[str, list[float]] = {"at_target": [], "r2": []}
        for l, top in enumerate(targets):
            for layer in self.layers[l + 1 :]:
                top = np.tanh(layer(top))
            found["at_target"].append(self.loss(top, labels) / before)
            tree = Trees(stack.rng)
            tree.grow(seen_z[l], seen[l], rate=1.0)
            left = np.square(wanted[l] - tree(z[l])).sum()
            found["r2"].append(1 - left / np.square(wanted[l]).sum())
        return found

    def loss(self, z: np.ndarray, labels: np.ndarray) -> float:
        """The mean cross-entropy of the softmax."""
        return float(-np.log((self.probabilities(z) * labels).sum(axis=1) + 1e-12).mean())

    def aligned(self, h, z, error: np.ndarray, learned: bool) -> list[np.ndarray]:
        """LRA-E's targets, first layer first."""
        targets: list[np.ndarray] = []
        for l in reversed(range(LAYERS)):
            if l == LAYERS - 1:
                e = self.e_top
            else:
                e = linear_transpose(z[l + 1], h[l + 1]) if learned else self.e[l]
            target = np.tanh(h[l] - BETA * error @ e)
            error = -2 * (target - z[l + 1])
            targets.insert(0, target)
        return targets

    def inverted(self, z, top: np.ndarray) -> list[np.ndarray]:
        """Target propagation's, first layer first; the inverses grow by a tree each."""
        targets = [top]
        for l in reversed(range(1, LAYERS)):
            corrupted = z[l] + NOISE * z[l].std() * self.rng.normal(size=z[l].shape)
            code = np.tanh(self.layers[l](corrupted))
            self.inverses[l].grow(code, corrupted - self.inverses[l](code))
            targets.insert(0, self.inverses[l](targets[0]))
        return targets


def displacements(h: list[np.ndarray], targets: list[np.ndarray]) -> list[np.ndarray]:
    """By how much each layer's pre-activity misses its target's."""
    return [
        np.arctanh(np.clip(target, -0.99, 0.99)) - now
        for now, target in zip(h, targets, strict=True)
    ]


def linear_transpose(below: np.ndarray, h: np.ndarray) -> np.ndarray:
    """The transpose of the linear map nearest to a layer of trees, by ridge regression."""
    centred = below - below.mean(0)
    gram = centred.T @ centred + 1e-2 * len(below) * np.eye(below.shape[1])
    return np.linalg.solve(gram, centred.T @ (h - h.mean(0))).T


def load(name: str, seed: int) -> tuple[np.ndarray, ...]:
    """Train and test images, train and test labels; standardised, a fifth for the test."""
    if name == "mnist":
        found = data.load(name, DATA_DIR.value)
        rows = np.random.default_rng(seed).permutation(len(found.train.y))[:MNIST_EXAMPLES]
        x, y = (np.asarray(part) for part in found.train)
        return x[rows] / 255, np.asarray(found.test.x) / 255, y[rows], np.asarray(found.test.y)
    if name == "synthetic":
        shape = {"n_samples": 2000, "n_features": 20, "n_informative": 10, "n_classes": 4}
        x, y = datasets.make_classification(**shape, random_state=seed)
    else:
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.2, random_state=seed, stratify=y
    )
    scaler = StandardScaler().fit(x_train)
    return scaler.transform(x_train), scaler.transform(x_test), y_train, y_test


def train(rule: str, dataset: str, seed: int, rounds: int) -> dict[str, Any]:
    """Accuracies in % and seconds of one run; of a rule that gives targets, what they are worth."""
    x, x_test, y, y_test = load(dataset, seed)
    looks = []
    began = time.perf_counter()
    if rule == "ensemble":
        # As many trees as all layers have together.
        model = HistGradientBoostingClassifier(
            max_iter=rounds * LAYERS, max_depth=DEPTH, early_stopping=False, random_state=seed
        ).fit(x, y)
        accuracies = [100 * model.score(*part) for part in ((x, y), (x_test, y_test))]
    else:
        stack = Stack(x, y, np.random.default_rng(seed))
        stack.round(x, rule)
        first = copy.deepcopy(stack)
        for _ in range(rounds - 1):
            stack.round(x, rule)
        stack.learn_softmax(stack.hidden(x)[1][-1])
        accuracies = [stack.accuracy(*part) for part in ((x, y), (x_test, y_test))]
    seconds = time.perf_counter() - began
    if rule not in ("ensemble", "frozen"):
        looks = [moment.diagnose(x_test, y_test, rule) for moment in (first, stack)]
    measured = {name: [look[name] for look in looks] for name in ("at_target", "r2") if looks}
    train_accuracy, test_accuracy = accuracies
    return {"train": train_accuracy, "test": test_accuracy, "seconds": seconds, **measured}


def main() -> None:
    """Trains every rule on every set."""
    try:
        at_least("seeds", SEEDS.value, 1)
        at_least("rounds", ROUNDS.value, 1)
        for name in DATASET.value:
            one_of("dataset", name, SETS)
        if "mnist" in DATASET.value:
            load("mnist", 0)
        folder = records.check_writable("out_dir", OUT_DIR.value, "boosted_trees")
    except ValueError as error:
        commandline.fail(error, FLAGS)
    for name in DATASET.value:
        rules = {}
        for rule in RULES:
            # On one core: threads cost small trees more than they gain, and seconds count.
            with threadpool_limits(1):
                runs = [train(rule, name, seed, ROUNDS.value) for seed in range(SEEDS.value)]
            rules[rule] = {key: records.rounded([run[key] for run in runs], 3) for key in runs[0]}
            mean = {key: np.mean(values) for key, values in rules[rule].items()}
            print(
                f"{name:15}{rule:20}train {mean['train']:6.2f} %  test {mean['test']:6.2f} %  "
                f"{mean['seconds']:.1f} s"
            )
        settings = {"dataset": name, "rounds": ROUNDS.value, "seeds": list(range(SEEDS.value))}
        record = {"settings": settings, **records.versions(), "rules": rules}
        record["versions"]["scikit-learn"] = sklearn.__version__
        records.write_json(folder / f"{name}.json", record)


if __name__ == "__main__":
    commandline.run(main, FLAGS, __doc__)
