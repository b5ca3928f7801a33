"""What stands where in a synthetic work of art: one function per subject of `artwork_labels.SUBJECTS`."""

import math

import numpy as np

from attr_jax.data.worlds import artwork_layout as layout
from attr_jax.data.worlds import artwork_people as people
from attr_jax.data.worlds import artwork_things as things
from attr_jax.data.worlds import common
from attr_jax.data.worlds.artwork_sheet import Pen, Sheet, blend


def draw_scene(rng: np.random.Generator, sheet: Sheet, subject: str, tags: layout.Tags):
  """Draws all tags of a picture of a `subject`, a key of `artwork_labels.SUBJECTS`, on its sheet, and nothing that is another tag."""
  sheet.box(0, 0, sheet.width, sheet.height, sheet.paints.wall)
  draw = {"sea": _sea, "country": _country, "riders": _riders, "soldiers": _soldiers, "saints": _saints, "portrait": _portrait,
          "still life": _still_life, "music": _music, "temple": _temple, "ornament": _ornament, "vessel": _vessel, "mask": _mask}[subject]
  draw(rng, sheet, tags)


def _behind(rng, sheet: Sheet, tags: layout.Tags, horizon: float, names: tuple[str, ...]):
  """What stands small at the horizon."""
  far = {"trees": (things.tree, 1.0, 0.75), "castles": (things.castle, 1.05, 1.05), "temples": (things.temple, 0.9, 1.15)}
  found = [far[name] for name in names if name in tags]
  if found:
    size = 0.45 * sheet.unit
    layout.stand(rng, sheet, found, horizon - size, horizon + 0.06 * sheet.unit)


def _sea(rng, sheet: Sheet, tags: layout.Tags):
  height, width, unit, paints = sheet.height, sheet.width, sheet.unit, sheet.paints
  horizon = height * rng.uniform(0.36, 0.46)
  sky = layout.sky(sheet, tags, horizon)
  if "mountains" in tags:
    layout.mountains(rng, sheet, horizon)
  blue = blend(common.hsv(rng.uniform(0.49, 0.54), 0.6, 0.36 if "night" in tags else 0.6), paints.ground, 0.25)
  layout.gradient(sheet, horizon, height, common.shade(blue, 1.2), common.shade(blue, 0.8))
  for y in np.arange(horizon + 0.05 * unit, height, 0.1 * unit):
    for x in np.arange(rng.uniform(-0.2, 0) * unit, width, 0.24 * unit):
      t = np.linspace(0, 0.15 * unit, 7)
      sheet.line(np.stack([x + t, y - 0.025 * unit * np.sin(t / (0.15 * unit) * math.pi)], 1), common.shade(blue, 1.45), 0.014 * unit)
  water = sheet.rgb.copy()
  if "castles" in tags:
    x = rng.uniform(0.2, 0.8) * width
    sheet.fill(common.oval((x, horizon + 0.04 * unit), 0.36 * unit, 0.1 * unit), common.shade(paints.ground, 0.8))
    things.castle(rng, Pen(sheet, x, horizon - 0.22 * unit, 0.5 * unit))
  deep = height - horizon
  if "ships" in tags:
    size = min(rng.uniform(0.5, 0.75) * unit, 0.95 * height)
    count = layout.fitting(width, 2.0 * size, 4)
    for i in range(count):
      x = width * (i + rng.uniform(0.35, 0.65)) / count
      things.ship(rng, Pen(sheet, x, horizon + deep * rng.uniform(0.18, 0.4) - 0.36 * size, size * rng.uniform(0.8, 1), layout.flip(rng)))
  if "fish" in tags:
    box = (0, horizon + 0.5 * deep, width, height)
    layout.scatter(rng, sheet, water, things.fish, 1 + layout.fitting(width, 0.9 * unit), box, 0.2, 0.3, 0.15)
  layout.hang(rng, sheet, sky, tags, horizon)


def _country(rng, sheet: Sheet, tags: layout.Tags):
  height, unit, paints = sheet.height, sheet.unit, sheet.paints
  horizon = height * rng.uniform(0.36, 0.5)
  sky = layout.sky(sheet, tags, horizon + 0.06 * unit)
  if "mountains" in tags:
    layout.mountains(rng, sheet, horizon + 0.05 * unit)
  grass = blend((112, 140, 78), paints.ground, 0.6)
  for i, share in enumerate((0.0, 0.28, 0.58)):
    colour = common.shade(blend(grass, paints.wall, 0.45 - 0.22 * i), 1 - 0.07 * i)
    layout.ridge(rng, sheet, horizon + (height - horizon) * share, 0.035 * unit, colour, rng.uniform(0.9, 1.5))
  _behind(rng, sheet, tags, horizon + 0.1 * unit, ("castles", "temples"))
  near = {"houses": (things.house, 0.8, 0.95), "trees": (things.tree, 1.0, 0.75), "horses": (things.horse, 0.6, 1.05),
          "lions": (things.lion, 0.6, 1.05), "men": (people.man, 0.8, 0.5), "women": (people.woman, 0.8, 0.6),
          "children": (people.child, 0.8, 0.42)}
  found = [near[name] for name in near if name in tags]
  if found:
    layout.stand(rng, sheet, found, horizon - 0.05 * unit, height - 0.05 * unit)
  layout.hang(rng, sheet, sky, tags, horizon)


def _battle(rng, sheet: Sheet, horizon: float, tall: float):
  """Lances and flags behind those who fight."""
  for x in np.arange(0.1 * sheet.unit, sheet.width, 0.22 * sheet.unit):
    x += rng.normal(0, 0.03) * sheet.unit
    pen = Pen(sheet, x, horizon - 0.25 * tall, tall * rng.uniform(0.85, 1.1), layout.flip(rng), rng.normal(0, 0.28))
    if rng.random() < 0.55:
      things.flag(pen, sheet.paints.accents[int(rng.integers(4))])
    else:
      pen.line([(0, -0.5), (0, 0.5)], (96, 72, 50), 0.03)


def _riders(rng, sheet: Sheet, tags: layout.Tags):
  horizon = sheet.height * rng.uniform(0.4, 0.52)
  sky = layout.sky(sheet, tags, horizon)
  if "mountains" in tags:
    layout.mountains(rng, sheet, horizon)
  layout.plain(sheet, horizon)
  _behind(rng, sheet, tags, horizon, ("trees", "castles"))
  if "battles" in tags:
    _battle(rng, sheet, horizon, 0.6 * sheet.unit)
  held = []
  if "swords" in tags:
    held.append((things.sword, 0.24, -0.24, 0.48, 0.35))
  if "shields" in tags:
    held.append((things.shield, -0.02, -0.02, 0.34, 0.0))
  if "crowns" in tags:
    held.append((people.crown, 0.0, -0.39, 0.17, 0.0))
  riders = [(layout.holding(things.rider, *held), 1.0, 0.85)] * (2 if "battles" in tags else 1)
  layout.stand(rng, sheet, riders, 0.1 * sheet.height, sheet.height - 0.05 * sheet.unit)
  layout.hang(rng, sheet, sky, tags, horizon)


def _soldiers(rng, sheet: Sheet, tags: layout.Tags):
  horizon = sheet.height * rng.uniform(0.4, 0.5)
  sky = layout.sky(sheet, tags, horizon)
  layout.plain(sheet, horizon)
  _behind(rng, sheet, tags, horizon, ("castles", "temples"))
  if "battles" in tags:
    _battle(rng, sheet, horizon, 0.7 * sheet.unit)
  held = []
  if "swords" in tags:
    held.append((things.sword, -0.27, -0.12, 0.44, -0.3))
  if "shields" in tags:
    held.append((things.shield, -0.1, 0.04, 0.36, 0.0))
  layout.stand(rng, sheet, [(layout.holding(people.soldier, *held), 0.8, 0.68)] * 2, 0.24 * sheet.height, sheet.height - 0.05 * sheet.unit)
  layout.hang(rng, sheet, sky, tags, horizon)


def _saints(rng, sheet: Sheet, tags: layout.Tags):
  height, width, unit, paints = sheet.height, sheet.width, sheet.unit, sheet.paints
  sheet.box(0, 0, width, height, blend(paints.ground, paints.wall, 0.4))
  count = layout.fitting(width, 0.95 * min(height, 1.6 * unit), 6)
  tall = min(height, 1.7 * width / count)
  for i in range(count):
    left, right = width * (i + 0.09) / count, width * (i + 0.91) / count
    top, bottom = (height - tall) / 2 + 0.05 * tall, (height + tall) / 2 - 0.06 * tall
    backdrop = paints.accents[2 * int(rng.integers(2))] if rng.random() < 0.5 else blend(paints.wall, paints.accents[3], 0.5)
    if "gold" in tags:
      backdrop = paints.gold
    layout.niche(sheet, left, right, top, bottom, backdrop)
    if "gold" in tags:  # rays
      middle = np.array([(left + right) / 2, top + 0.4 * (bottom - top)])
      for angle in np.arange(0, 2 * math.pi, math.pi / 8):
        way = np.array([math.cos(angle), math.sin(angle)]) * (right - left)
        sheet.line([middle + 0.2 * way, middle + 0.4 * way], common.shade(paints.gold, 0.75), 0.012 * unit)
    size = min(0.86 * (bottom - top), 1.25 * (right - left))
    x, foot = (left + right) / 2, bottom - 0.03 * tall
    flip = layout.flip(rng)
    pen = Pen(sheet, x, foot - size / 2, size, flip)
    people.saint(rng, pen, "women" in tags)
    if "children" in tags:
      people.child(rng, pen.part(-0.15, -0.12, 0.52))
    if "crosses" in tags:
      things.cross(rng, pen.part(people.HAND[0] + 0.05, -0.08, 0.6))
    if "books" in tags:
      things.book(rng, pen.part(-people.HAND[0] + 0.06, 0.0, 0.26))
    if "angels" in tags:
      for side in (-1, 1):
        people.angel(rng, pen.part(side * 0.28, -0.26, 0.34, flip=side))
    if "candles" in tags:
      things.candle(rng, pen.part(-0.3, 0.34, 0.34))
    if "lions" in tags:
      things.lion(rng, pen.part(0.26, 0.33, 0.36))


def _backdrop(rng, sheet: Sheet):
  """A curtain on one side or both."""
  paints = sheet.paints
  for side in (0, 1) if rng.random() < 0.5 else (int(rng.integers(2)),):
    colour = paints.accents[int(rng.integers(3))]
    for i in range(4):
      x0, x1 = (sheet.width * (side + (1 - 2 * side) * 0.06 * j) for j in (i, i + 1))
      low = x1 + (1 - 2 * side) * 0.02 * sheet.width * (3 - i)
      sheet.fill([(x0, 0), (x1, 0), (low, sheet.height), (x0, sheet.height)], common.shade(colour, (1.0, 0.78)[i % 2]))


def _portrait(rng, sheet: Sheet, tags: layout.Tags):
  height, width, unit, paints = sheet.height, sheet.width, sheet.unit, sheet.paints
  field = paints.gold if "gold" in tags else blend(paints.ground, paints.wall, rng.uniform(0.2, 0.7))
  kind = "men" if "men" in tags else "women"
  long, across = max(height, width), min(height, width)
  count = layout.fitting(long, 1.25 * across, 5) if long > 1.7 * across else 1
  if count == 1:
    if "gold" in tags:
      sheet.fill(common.oval((width / 2, height * 0.52), 0.47 * width, 0.47 * height, 40), field)
    else:
      sheet.box(0, 0, width, height, field)
      _backdrop(rng, sheet)
  for i in range(count):
    share = (i + 0.5) / count
    x, y = (width * share, height / 2) if width > height else (width / 2, height * share)
    if count > 1:  # a row of medallions
      sheet.fill(common.oval((x, y), 0.47 * across, 0.47 * across, 36), field)
      sheet.line(common.oval((x, y), 0.47 * across, 0.47 * across, 36), paints.dark, 0.02 * unit, closed=True)
      size = 0.82 * across
    else:
      size = min(rng.uniform(0.95, 1.12) * unit, height)
      x, y = width * rng.uniform(0.44, 0.56), height - size / 2
    pen = Pen(sheet, x, y, size, layout.flip(rng))
    if "children" in tags:
      people.bust(rng, pen.part(-0.13, 0.0, 1.0), kind, False)
      people.bust(rng, pen.part(0.28, 0.18, 0.64), "children", False)
    else:
      people.bust(rng, pen, kind, "crowns" in tags)
    held = {"books": (things.book, -0.22, 0.36, 0.3, -0.1), "flowers": (things.flower, 0.27, 0.28, 0.42, 0.15),
            "birds": (things.bird, 0.32, 0.1, 0.3, 0.0), "swords": (things.sword, 0.34, 0.14, 0.66, 0.12)}
    layout.holding(layout.nothing, *(held[name] for name in held if name in tags))(rng, pen)


def _still_life(rng, sheet: Sheet, tags: layout.Tags):
  height, width, unit, paints = sheet.height, sheet.width, sheet.unit, sheet.paints
  layout.gradient(sheet, 0, height, blend(paints.ground, paints.dark, 0.35), blend(paints.ground, paints.wall, 0.3))
  edge = height - rng.uniform(0.3, 0.38) * min(height, 1.3 * width)
  cloth = paints.accents[3]
  sheet.box(0, edge, width, height, blend(cloth, paints.wall, 0.4))
  low = edge + 0.2 * unit
  sheet.box(0, low, width, height, common.shade(blend(cloth, paints.wall, 0.4), 0.8))
  for x in np.arange(rng.uniform(0, 0.2) * unit, width, 0.22 * unit):
    sheet.fill([(x, low), (x + 0.05 * unit, low), (x + 0.09 * unit, height), (x - 0.02 * unit, height)], common.shade(cloth, 0.68))
  empty = sheet.rgb.copy()

  def vase(rng, pen):
    if "flowers" in tags:
      things.bouquet(rng, pen.part(0, -0.22, 0.56))
      things.vase(rng, pen.part(0, 0.22, 0.56))
    else:
      things.vase(rng, pen)

  fish = layout.holding(layout.nothing, (things.fish, 0.0, 0.25, 1.0, 0.0))  # lying
  kinds = {"vases": (vase, 1.15 if "flowers" in tags else 0.9, 0.62), "cups": (things.cup, 0.62, 0.7),
           "fruit": (things.fruit, 0.55, 0.95), "fish": (fish, 0.5, 1.05), "books": (things.book, 0.45, 1.1),
           "candles": (things.candle, 0.62, 0.42), "masks": (things.mask, 0.6, 0.85)}
  found = [kinds[name] for name in kinds if name in tags]
  layout.stand(rng, sheet, found, max(0.04 * height, edge - 1.1 * unit), edge + 0.14 * unit)
  if "butterflies" in tags:
    layout.scatter(rng, sheet, empty, things.butterfly, 1 + layout.fitting(width, 1.6 * unit), (0, 0, width, edge), 0.22, 0.32, 0.4)


def _music(rng, sheet: Sheet, tags: layout.Tags):
  height, unit, paints = sheet.height, sheet.unit, sheet.paints
  horizon = height * rng.uniform(0.45, 0.6)
  sky = None
  if tags & {"night", "trees", "birds"}:
    sky = layout.sky(sheet, tags, horizon)
    layout.plain(sheet, horizon)
  else:
    sheet.box(0, 0, sheet.width, height, blend(paints.wall, paints.accents[1], 0.25))
    _backdrop(rng, sheet)
    layout.plain(sheet, height * 0.8)
  _behind(rng, sheet, tags, horizon, ("trees",))
  lute = (things.lute, 0.03, 0.0, 0.56, -0.85)
  figures = [(layout.holding(figure, lute), 1.0, 0.68) for name, figure in (("men", people.man), ("women", people.woman)) if name in tags]
  more = [thing for name, thing in (("flowers", (things.flower, 0.42, 0.6)), ("cups", (things.cup, 0.36, 0.75))) if name in tags]
  layout.stand(rng, sheet, figures + more, 0.1 * height, height - 0.05 * unit)
  if sky is not None:
    layout.hang(rng, sheet, sky, tags, horizon)


def _temple(rng, sheet: Sheet, tags: layout.Tags):
  height, width, unit = sheet.height, sheet.width, sheet.unit
  horizon = height * rng.uniform(0.5, 0.6)
  sky = layout.sky(sheet, tags, horizon)
  layout.plain(sheet, horizon)
  wide = min((0.8 if tags & {"sun", "moon"} else 1.05) * unit, 0.92 * width)
  size = min(wide / 1.15, 0.62 * height)
  count = layout.fitting(width, 1.7 * wide, 4)
  for i in range(count):
    x = width * (i + (rng.uniform(0.42, 0.58) if count > 1 else rng.uniform(0.45, 0.55))) / count
    things.temple(rng, Pen(sheet, x, horizon + 0.06 * unit - size / 2 + 0.12 * size, size))
  near = {"trees": (things.tree, 1.0, 0.7), "men": (people.man, 0.8, 0.55), "women": (people.woman, 0.8, 0.62),
          "lions": (things.lion, 0.6, 1.05), "snakes": (things.snake, 0.55, 1.05), "candles": (things.candle, 0.7, 0.5)}
  found = [near[name] for name in near if name in tags]
  if found:
    layout.stand(rng, sheet, found, height - min(0.5 * height, 0.62 * unit), height - 0.05 * unit)
  layout.hang(rng, sheet, sky, tags, horizon)


def _ornament(rng, sheet: Sheet, tags: layout.Tags):
  """One to three motifs, repeated in a lattice."""
  height, width, unit, paints = sheet.height, sheet.width, sheet.unit, sheet.paints
  sheet.box(0, 0, width, height, blend(paints.wall, paints.ground, rng.uniform(0.15, 0.5)))
  kinds = {"flowers": things.flower, "birds": things.bird, "butterflies": things.butterfly, "lions": things.lion, "snakes": things.snake,
           "stars": things.star, "fish": things.fish, "crosses": things.cross}
  motifs = [kinds[name] for name in kinds if name in tags]
  side = unit / int(rng.integers(2, 4))
  rows, columns = max(1, round(height / side)), max(1, round(width / side))
  medallion = blend(paints.accents[int(rng.integers(3))], paints.wall, 0.35) if rng.random() < 0.6 else None
  if "gold" in tags:
    medallion = paints.gold
  half, discs = 0.5 * side, rng.random() < 0.5
  for i in range(rows):
    for j in range(columns):
      x, y = width * (j + 0.5) / columns, height * (i + 0.5) / rows
      if medallion is not None:
        shape = common.oval((x, y), 0.92 * half, 0.92 * half, 24) if discs else common.oval((x, y), half, half, 4)
        sheet.fill(shape, medallion)
        sheet.line(shape, common.shade(medallion, 0.55), 0.012 * unit, closed=True)
      size = (0.8 if medallion is None else 0.66) * side * rng.uniform(0.92, 1.05)
      motifs[(i + j) % len(motifs)](rng, Pen(sheet, x, y, size, 1 if (i + j) % 2 else -1))


def _vessel(rng, sheet: Sheet, tags: layout.Tags):
  """Large vases with something painted on the belly."""
  height, width, unit, paints = sheet.height, sheet.width, sheet.unit, sheet.paints
  sheet.box(0, 0, width, height, blend(paints.wall, paints.accents[3], 0.5))
  layout.plain(sheet, height - 0.14 * unit)
  kinds = {"horses": things.horse, "men": people.man, "women": people.woman, "fish": things.fish, "birds": things.bird,
           "snakes": things.snake, "flowers": things.flower, "lions": things.lion}
  (motif,) = (kinds[name] for name in kinds if name in tags)
  long, across = max(height, width), min(height, width)
  count = layout.fitting(long, 1.05 * across, 6)
  for i in range(count):
    share = (i + 0.5) / count
    x, y = (width * share, height * 0.52) if width > height else (width / 2, height * share)
    size = 0.88 * across * rng.uniform(0.92, 1.0)
    colour = paints.accents[int(rng.integers(3))]
    pen = Pen(sheet, x, y, size)
    for side in (-1, 1):
      pen.line([(side * 0.15, -0.36), (side * 0.36, -0.38), (side * 0.4, -0.18)], common.shade(colour, 0.6), 0.045)
    right = np.array([(0.2, -0.5), (0.15, -0.44), (0.15, -0.34), (0.34, -0.2), (0.44, 0.02), (0.36, 0.28), (0.16, 0.42), (0.22, 0.5)])
    pen.fill(np.concatenate([right, right[::-1] * (-1, 1)]), colour)
    pen.oval(0, 0.02, 0.33, 0.25, paints.accents[3], 0.6)
    for y, half in ((-0.32, 0.17), (0.36, 0.24)):
      pen.line([(-half, y), (half, y)], paints.accents[3], 0.03)
    motif(rng, pen.part(0, 0.02, 0.42, flip=layout.flip(rng)))


def _mask(rng, sheet: Sheet, tags: layout.Tags):
  height, width, unit, paints = sheet.height, sheet.width, sheet.unit, sheet.paints
  layout.gradient(sheet, 0, height, blend(paints.ground, paints.dark, 0.2), blend(paints.ground, paints.wall, 0.4))
  empty = sheet.rgb.copy()
  near = {"men": (people.man, 0.9, 0.5), "women": (people.woman, 0.9, 0.6), "snakes": (things.snake, 0.6, 1.05),
          "flowers": (things.flower, 0.7, 0.6)}
  found = [near[name] for name in near if name in tags]
  top = 0.03 * height
  if tags & {"sun", "birds"}:
    low = top + min(0.36 * unit, 0.35 * height)
    draw, sizes = (things.sun, (0.28, 0.36)) if "sun" in tags else (things.bird, (0.2, 0.28))
    layout.scatter(rng, sheet, empty, draw, layout.fitting(width, 1.1 * unit), (0, top, width, low), *sizes)
    top = low
  layout.stand(rng, sheet, [(things.mask, 0.85, 0.95), *found], top, height - 0.05 * unit)
