"""Class names that the archives of the papers' datasets do not carry, in label order.

They are those of CLIP (github.com/openai/CLIP, data/prompts.md, MIT), which the BadMerging code
uses too for GTSRB and EuroSAT. The spelling is CLIP's, slips included: a zero-shot head depends on
it.
"""

from __future__ import annotations

_LIMIT, _TRIANGLE, _BLUE, _END = (
    "red and white circle",
    "red and white triangle",
    "blue circle with white",
    "white circle with gray strike bar",
)
GTSRB = (
    *(f"{_LIMIT} {v} kph speed limit" for v in (20, 30, 50, 60, 70, 80)),
    "end / de-restriction of 80 kph speed limit",
    *(f"{_LIMIT} {v} kph speed limit" for v in (100, 120)),
    f"{_LIMIT} red car and black car no passing",
    f"{_LIMIT} red truck and black car no passing",
    f"{_TRIANGLE} road intersection warning",
    "white and yellow diamond priority road",
    "red and white upside down triangle yield right-of-way",
    "stop",
    "empty red and white circle",
    f"{_LIMIT} no truck entry",
    "red circle with white horizonal stripe no entry",
    f"{_TRIANGLE} with exclamation mark warning",
    f"{_TRIANGLE} with black left curve approaching warning",
    f"{_TRIANGLE} with black right curve approaching warning",
    f"{_TRIANGLE} with black double curve approaching warning",
    f"{_TRIANGLE} rough / bumpy road warning",
    f"{_TRIANGLE} car skidding / slipping warning",
    f"{_TRIANGLE} with merging / narrow lanes warning",
    f"{_TRIANGLE} with person digging / construction / road work warning",
    f"{_TRIANGLE} with traffic light approaching warning",
    f"{_TRIANGLE} with person walking warning",
    f"{_TRIANGLE} with child and person walking warning",
    f"{_TRIANGLE} with bicyle warning",
    f"{_TRIANGLE} with snowflake / ice warning",
    f"{_TRIANGLE} with deer warning",
    f"{_END} no speed limit",
    *(
        f"{_BLUE} {way} arrow mandatory"
        for way in (
            "right turn",
            "left turn",
            "forward",
            "forward or right turn",
            "forward or left turn",
            "keep right",
            "keep left",
        )
    ),
    f"{_BLUE} arrows indicating a traffic circle",
    f"{_END} indicating no passing for cars has ended",
    f"{_END} indicating no passing for trucks has ended",
)
EUROSAT = {
    "AnnualCrop": "annual crop land",
    "Forest": "forest",
    "HerbaceousVegetation": "brushland or shrubland",
    "Highway": "highway or road",
    "Industrial": "industrial buildings or commercial buildings",
    "Pasture": "pasture land",
    "PermanentCrop": "permanent crop land",
    "Residential": "residential buildings or homes or apartments",
    "River": "river",
    "SeaLake": "lake or sea",
}
FLOWERS = tuple(
    name.strip()
    for name in """
    pink primrose, hard-leaved pocket orchid, canterbury bells, sweet pea, english marigold, tiger lily, moon orchid,
    bird of paradise, monkshood, globe thistle, snapdragon, colt's foot, king protea, spear thistle, yellow iris,
    globe flower, purple coneflower, peruvian lily, balloon flower, giant white arum lily, fire lily, pincushion flower,
    fritillary, red ginger, grape hyacinth, corn poppy, prince of wales feathers, stemless gentian, artichoke,
    sweet william, carnation, garden phlox, love in the mist, mexican aster, alpine sea holly, ruby-lipped cattleya,
    cape flower, great masterwort, siam tulip, lenten rose, barbeton daisy, daffodil, sword lily, poinsettia,
    bolero deep blue, wallflower, marigold, buttercup, oxeye daisy, common dandelion, petunia, wild pansy, primula,
    sunflower, pelargonium, bishop of llandaff, gaura, geranium, orange dahlia, pink and yellow dahlia, cautleya spicata,
    japanese anemone, black-eyed susan, silverbush, californian poppy, osteospermum, spring crocus, bearded iris,
    windflower, tree poppy, gazania, azalea, water lily, rose, thorn apple, morning glory, passion flower, lotus,
    toad lily, anthurium, frangipani, clematis, hibiscus, columbine, desert-rose, tree mallow, magnolia, cyclamen,
    watercress, canna lily, hippeastrum, bee balm, air plant, foxglove, bougainvillea, camellia, mallow,
    mexican petunia, bromelia, blanket flower, trumpet creeper, blackberry lily
""".split(",")
)
