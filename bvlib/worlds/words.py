"""What kind of thing each class of Tiny-ImageNet is, in everyday words, for captions of the
``real32`` base.

Captions on the web say "dog" more often than "standard poodle". The words are ours, chosen from
the class names alone; classes that fit nowhere (an acorn, a trilobite) have none.
"""

_KINDS = {
    "fish": "goldfish",
    "frog": "bullfrog, tailed frog",
    "amphibian": "European fire salamander",
    "reptile": "American alligator, boa constrictor",
    "spider": "black widow, tarantula",
    "insect": "ladybug, fly, bee, grasshopper, walking stick, cockroach, mantis, dragonfly",
    "butterfly": "monarch, sulphur butterfly",
    "bird": "goose, black stork, king penguin, albatross",
    "shellfish": "American lobster, spiny lobster, snail",
    "sea animal": "jellyfish, brain coral, sea slug, dugong, sea cucumber",
    "dog": "Chihuahua, Yorkshire terrier, golden retriever, Labrador retriever, German shepherd, "
    "standard poodle",
    "cat": "tabby, Persian cat, Egyptian cat",
    "big cat": "cougar, lion",
    "bear": "brown bear",
    "farm animal": "hog, ox",
    "wild animal": "bison, bighorn, gazelle, Arabian camel, African elephant, koala, lesser panda",
    "ape": "orangutan, chimpanzee",
    "monkey": "baboon",
    "coat": "academic gown, fur coat, kimono, vestment, poncho",
    "clothes": "apron, bow tie, Christmas stocking, military uniform, sock, swimming trunks, "
    "bikini",
    "pullover": "cardigan",
    "skirt": "miniskirt",
    "hat": "sombrero",
    "shoe": "sandal",
    "bag": "backpack",
    "car": "beach wagon, convertible, limousine, sports car",
    "automobile": "beach wagon, convertible, limousine, sports car",
    "truck": "moving van, police van",
    "vehicle": "tractor, go-kart, jinrikisha",
    "bus": "school bus, trolleybus",
    "train": "bullet train, freight car",
    "boat": "gondola, lifeboat",
    "bridge": "steel arch bridge, suspension bridge, viaduct",
    "building": "barn, altar, cliff dwelling, triumphal arch, water tower, thatch, beacon, "
    "obelisk, birdhouse, dam, fountain",
    "shop": "barbershop, butcher shop, confectionery",
    "furniture": "bathtub, chest, desk, dining table, rocking chair, lampshade, bannister",
    "musical instrument": "brass, drumstick, oboe, organ",
    "ball": "basketball, rugby ball, volleyball",
    "bottle": "beer bottle, pill bottle, pop bottle",
    "container": "barrel, bucket, water jug, beaker",
    "kitchen thing": "frying pan, teapot, wok, wooden spoon, plate",
    "fence": "picket fence, turnstile",
    "tool": "broom, nail, plunger, syringe, torch, reel, lawn mower",
    "pole": "flagpole, maypole",
    "machine": "cash machine, CD player, computer keyboard, iPod, refrigerator, remote control, "
    "sewing machine, crane, "
    "space heater, parking meter, pay-phone",
    "clock": "hourglass, stopwatch",
    "weapon": "cannon, projectile",
    "glasses": "sunglasses, binoculars",
    "toy": "teddy",
    "fruit": "orange, lemon, banana, pomegranate",
    "vegetable": "cauliflower, bell pepper, mushroom",
    "food": "guacamole, ice cream, ice lolly, pretzel, mashed potato, meat loaf, pizza, potpie, "
    "espresso",
    "mountain": "alp, cliff",
    "beach": "seashore, lakeside",
}
KIND_WORDS: dict[str, list[str]] = {}  # class name -> words, one or two
for _kind, _names in _KINDS.items():
    for _name in _names.split(", "):
        KIND_WORDS.setdefault(_name, []).append(_kind)
