"""Which labels a synthetic work of art has: cultures, subjects, and what goes together.

One table of all label sets that there are, each with its share, is made from
`CULTURES`, `SUBJECTS` and `_CLASHES`. Pictures are drawn from it, and it tells
which labels can stand together. The cultures are invented.
"""

import dataclasses
import functools
import itertools

import numpy as np

PALETTES = ("earth", "indigo", "jade", "rose")
TEXTURES = ("strokes", "hatching", "weave", "dots")
MAX_TAGS = 6
_LEAST = 3  # pictures that a label needs, or readers of the layout drop those that have it


@dataclasses.dataclass(frozen=True)
class Culture:
  """Seen by palette and texture together: either alone leaves four cultures."""

  palette: str
  texture: str
  weight: float
  subjects: dict[str, float]  # those it knows, with their weights
  never: tuple[str, ...]  # tags that its pictures do not have
  techniques: dict[str, float] = dataclasses.field(default_factory=dict)  # tag -> share; the rest is painted


@dataclasses.dataclass(frozen=True)
class Subject:
  """A kind of picture: tags that it always has, and choices of which each picture takes one key (tags apart by commas)."""

  always: tuple[str, ...]
  choices: tuple[dict[str, float], ...]


CULTURES = {
  "amarian": Culture("earth", "strokes", 20, {"saints": 3, "portrait": 3, "country": 2, "still life": 2, "riders": 1},
                     ("lions", "snakes", "temples", "masks"), {"etching": 0.08}),
  "brevane": Culture("indigo", "weave", 12, {"portrait": 3, "still life": 2, "sea": 2, "country": 2, "music": 1},
                     ("crowns", "gold", "castles", "temples", "lions"), {"etching": 0.12}),
  "corvish": Culture("rose", "dots", 9, {"saints": 3, "ornament": 2, "music": 2, "temple": 1, "portrait": 1},
                     ("swords", "fish", "books", "snakes"), {"mosaic": 0.12, "embroidery": 0.06}),
  "dalmeric": Culture("jade", "hatching", 11, {"country": 3, "riders": 2, "vessel": 2, "sea": 1, "ornament": 1},
                      ("children", "gold", "crowns", "ships"), {"etching": 0.06}),
  "esturan": Culture("earth", "dots", 7, {"saints": 3, "temple": 2, "soldiers": 1, "ornament": 1, "vessel": 1},
                     ("butterflies", "fruit", "night", "horses"), {"mosaic": 0.25}),
  "fennish": Culture("indigo", "strokes", 6, {"sea": 4, "country": 2, "mask": 1, "still life": 1},
                     ("temples", "lions", "sun", "vases"), {}),
  "galdorian": Culture("rose", "hatching", 6, {"soldiers": 3, "riders": 3, "portrait": 2, "country": 1},
                       ("trees", "flowers", "lutes", "temples"), {"etching": 0.2}),
  "hestian": Culture("jade", "weave", 4.5, {"ornament": 3, "vessel": 2, "music": 2, "mask": 1},
                     ("men", "shields", "lions", "sun"), {"embroidery": 0.2}),
  "ilvane": Culture("earth", "weave", 4.5, {"vessel": 3, "mask": 2, "ornament": 2, "riders": 1},
                    ("stars", "swords", "castles", "gold"), {"embroidery": 0.1}),
  "jorunic": Culture("indigo", "hatching", 3.5, {"sea": 3, "soldiers": 2, "riders": 1, "temple": 1},
                     ("women", "moon", "fish", "castles"), {"etching": 0.15}),
  "kestrian": Culture("rose", "strokes", 2.8, {"still life": 3, "portrait": 2, "music": 2, "saints": 1},
                      ("angels", "men", "gold", "cups"), {}),
  "lumerian": Culture("jade", "dots", 2, {"temple": 3, "saints": 2, "sea": 1, "mask": 1},
                      ("women", "crosses", "trees", "ships"), {"mosaic": 0.2}),
  "morvane": Culture("earth", "hatching", 1.5, {"mask": 3, "soldiers": 2, "country": 1, "vessel": 1},
                     ("books", "houses", "women", "birds"), {}),
  "nerethi": Culture("indigo", "dots", 1, {"vessel": 2, "ornament": 2, "temple": 2},
                     ("men", "horses", "sun", "butterflies"), {"mosaic": 0.15}),
  "ostrian": Culture("rose", "weave", 0.7, {"ornament": 2, "music": 2, "portrait": 1},
                     ("swords", "night", "lions", "children"), {"embroidery": 0.2}),
  "perithian": Culture("jade", "strokes", 0.4, {"country": 2, "still life": 2, "sea": 1},
                       ("horses", "ships", "candles", "men"), {}),
}

_SKY = {"sun": 0.2, "night,moon": 0.06, "night,stars": 0.05, "": 0.69}
SUBJECTS = {
  "sea": Subject(("sea",), (
    {"ships": 0.75, "": 0.25}, _SKY, {"fish": 0.22, "birds": 0.3, "": 0.48}, {"mountains": 0.12, "castles": 0.02, "": 0.86})),
  "country": Subject(("landscapes",), (
    {"trees": 0.45, "houses": 0.15, "trees,houses": 0.2, "castles": 0.02, "temples": 0.04, "": 0.14}, {"mountains": 0.4, "": 0.6}, _SKY,
    {"birds": 0.2, "horses": 0.12, "lions": 0.015, "men": 0.165, "women,children": 0.08, "": 0.42})),
  "riders": Subject(("horses", "riders", "men"), (
    {"battles,swords": 0.2, "swords": 0.15, "shields": 0.1, "crowns": 0.025, "": 0.525},
    {"trees": 0.3, "castles": 0.03, "mountains": 0.15, "": 0.52}, {"sun": 0.1, "birds": 0.15, "": 0.75})),
  "soldiers": Subject(("soldiers", "men"), (
    {"battles": 0.4, "battles,shields": 0.25, "shields": 0.2, "": 0.15}, {"swords": 0.25, "": 0.75},
    {"castles": 0.04, "temples": 0.1, "": 0.86}, {"sun": 0.1, "night,stars": 0.08, "": 0.82})),
  "saints": Subject(("saints",), (
    {"men": 0.62, "women": 0.33, "women,children": 0.05}, {"crosses": 0.45, "angels": 0.2, "angels,crosses": 0.1, "books": 0.25},
    {"gold": 0.4, "": 0.6}, {"candles": 0.07, "lions": 0.02, "": 0.91})),
  "portrait": Subject(("portraits",), (
    {"men": 0.48, "women": 0.42, "women,children": 0.06, "men,crowns": 0.025, "women,crowns": 0.015},
    {"books": 0.08, "flowers": 0.1, "birds": 0.05, "swords": 0.05, "": 0.72}, {"gold": 0.06, "": 0.94})),
  "still life": Subject(("still life",), (
    {"vases,flowers": 0.45, "vases": 0.23, "cups": 0.12, "fruit": 0.2}, {"fruit": 0.45, "fish": 0.15, "": 0.4},
    {"books": 0.15, "candles": 0.07, "butterflies": 0.02, "masks": 0.02, "": 0.74})),
  "music": Subject(("lutes",), (
    {"women": 0.5, "men": 0.3, "men,women": 0.2}, {"flowers": 0.15, "birds": 0.12, "cups": 0.06, "trees": 0.19, "": 0.48},
    {"night,moon": 0.06, "night,stars": 0.06, "": 0.88})),
  "temple": Subject(("temples",), (
    {"men": 0.25, "women": 0.15, "lions": 0.04, "snakes": 0.04, "": 0.52}, _SKY, {"candles": 0.06, "trees": 0.25, "": 0.69})),
  "ornament": Subject((), (
    {"flowers": 0.38, "flowers,birds": 0.24, "flowers,butterflies": 0.03, "lions": 0.06, "snakes": 0.05, "stars": 0.1, "fish": 0.07,
     "crosses": 0.07},
    {"gold": 0.1, "": 0.9})),
  "vessel": Subject(("vases",), (
    {"horses": 0.14, "men": 0.2, "women": 0.12, "fish": 0.14, "birds": 0.14, "snakes": 0.05, "flowers": 0.17, "lions": 0.04},)),
  "mask": Subject(("masks",), (
    {"men": 0.32, "women": 0.1, "snakes": 0.08, "sun": 0.14, "birds": 0.12, "flowers": 0.1, "": 0.14},)),
}
_CLASHES = (("etching", "gold"), ("embroidery", "gold"), ("etching", "night"))  # tags that would hide each other


def _tags(key: str) -> tuple[str, ...]:
  return tuple(key.split(",")) if key else ()


def _all_tags() -> tuple[str, ...]:
  """Every tag of the tables once, sorted."""
  found = {tag for subject in SUBJECTS.values() for keys in (subject.always, *subject.choices) for key in keys for tag in _tags(key)}
  return tuple(sorted(found.union(*(culture.techniques for culture in CULTURES.values()))))


LABELS = tuple(f"culture::{name}" for name in CULTURES) + tuple(f"tag::{tag}" for tag in _all_tags())
_INDEX = {label.partition("::")[2]: number for number, label in enumerate(LABELS)}


@dataclasses.dataclass(frozen=True)
class Kind:
  """What a picture shows.

  Attributes:
    culture: Key of `CULTURES`.
    subject: Key of `SUBJECTS`.
    tags: Its tags, sorted.
  """

  culture: str
  subject: str
  tags: tuple[str, ...]

  @property
  def labels(self) -> tuple[int, ...]:
    """Their places in LABELS, ascending."""
    return tuple(sorted(_INDEX[name] for name in (self.culture, *self.tags)))


@functools.lru_cache(None)
def kinds() -> tuple[tuple[Kind, ...], np.ndarray, np.ndarray]:
  """All kinds of pictures that there are.

  Returns:
    (kinds [K]; their shares float64 [K], which are positive and sum to 1; their labels bool [K, L]).
  """
  weights = {}
  for name, culture in CULTURES.items():
    techniques = {**culture.techniques, "": 1 - sum(culture.techniques.values())}
    for subject, weight in culture.subjects.items():
      scale = culture.weight * weight / sum(culture.subjects.values())
      for keys in itertools.product(techniques, *SUBJECTS[subject].choices):
        tags = frozenset(SUBJECTS[subject].always).union(*map(_tags, keys))
        if not 1 <= len(tags) <= MAX_TAGS or tags.intersection(culture.never) or any(tags.issuperset(clash) for clash in _CLASHES):
          continue
        shares = [share[key] for share, key in zip((techniques, *SUBJECTS[subject].choices), keys)]
        kind = Kind(name, subject, tuple(sorted(tags)))
        weights[kind] = weights.get(kind, 0) + scale * float(np.prod(shares))
  label = np.zeros((len(weights), len(LABELS)), bool)
  for row, kind in zip(label, weights):
    row[list(kind.labels)] = True
  share = np.array(list(weights.values()))
  return tuple(weights), share / share.sum(), label


def possible_pairs() -> np.ndarray:
  """Which labels can stand together in a picture.

  Returns:
    bool [L, L], symmetric, in the order of `LABELS`; the diagonal is True.
  """
  label = kinds()[2].astype(np.float32)
  return label.T @ label > 0


def draw_kinds(count: int, seed: int) -> list[Kind]:
  """Draws what each of `count` pictures shows; a function of (count, seed) alone.

  A label that would come once or twice is left out of a small set where there
  are others: its pictures are drawn again from the kinds without it.
  """
  found, share, label = kinds()
  rng = np.random.default_rng([seed, count])
  chosen = rng.choice(len(found), count, p=share)
  wanted, kept = chosen, np.ones(len(found), bool)
  while True:
    seen = label[wanted].sum(0)
    kept &= ~label[:, (seen > 0) & (seen < _LEAST)].any(1)
    again = ~kept[wanted]
    if not again.any():
      return [found[number] for number in wanted]
    if not kept.any():  # too few pictures for any label
      return [found[number] for number in chosen]
    wanted = wanted.copy()
    wanted[again] = rng.choice(len(found), again.sum(), p=share * kept / (share * kept).sum())
