"""Steering, sheets of concepts and `jaxai concepts`: planted concepts, closed forms, files and mistakes."""

import html
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close
from PIL import Image
from tiny_network import LABELS, SIZE, tiny

import jaxai
from jaxai.cli import main
from jaxai.concepts import concept_sheets, craft, sae, steer, strongest_concepts

KEY = jax.random.key(0)
# Colours are the concepts: red speaks for class 1, green for classes 0 and 2.
WEIGHTS = jnp.asarray([[0.0, 3.0, 0.0], [2.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
NET = jaxai.chain({"features": lambda x: x, "logits": lambda a: a.mean((1, 2)) @ WEIGHTS})


def photos(count=8, size=8):
    rng = np.random.default_rng(0)
    made = rng.uniform(0, 0.2, (count, size, size, 3)).astype(np.float32)
    for i, photo in enumerate(made):
        # Patches of one colour, brighter from photo to photo.
        photo[:4, 2:6, i % 3] = 0.3 + 0.6 * i / count
    return jnp.asarray(made)


def test_steering_by_hand():
    x = photos()
    scores = steer(NET, x, jnp.eye(3), 1, layer="features", factors=(0.0, 1.0, 3.0), batch_size=3)
    means = np.asarray(x).mean((1, 2))
    for factor, found in zip((0, 1, 3), scores, strict=True):
        close(found, (means * [1, factor, 1]) @ np.asarray(WEIGHTS), 1e-5)


@pytest.mark.slow
def test_a_sheet_says_where_a_concept_is_and_what_owes_to_it():
    x = photos()
    [green] = concept_sheets(
        NET, x, jnp.eye(3), layer="features", which=[1], key=KEY, top=2, num_classes=2, steps=0
    )
    assert green.indices.tolist() == [7, 4] and green.classes.tolist() == [0, 2] and green.drawn is None
    close(green.amounts, np.asarray(x)[[7, 4], ..., 1].max((1, 2)))
    close(green.maps, np.asarray(x)[[7, 4], ..., 1])
    drops = np.asarray(x)[[7, 4], ..., 1].mean((1, 2))[:, None] * [2.0, 1.0]
    close(green.effects, drops.mean(0), 1e-4)
    close(green.errors, drops.std(0) / np.sqrt(1), 1e-4)
    scores = steer(NET, x[jnp.asarray([7, 4])], jnp.eye(3), 1, layer="features", factors=green.factors)
    close(green.curves, jax.nn.softmax(scores, -1)[..., jnp.asarray([0, 2])].mean(1), 1e-5)
    picture = jaxai.plots.render(jaxai.plots.concept_sheet(green, labels=["a_$b", "c", "d"], title="green"))
    assert picture.shape[1] > picture.shape[0] > 200 and picture.std() > 10


@pytest.mark.slow
def test_one_photo_has_no_standard_errors():
    options = dict(layer="features", which=[1], key=KEY, num_classes=2, steps=0)
    [alone], [pair] = (concept_sheets(NET, photos(), jnp.eye(3), top=top, **options) for top in (1, 2))
    assert np.isfinite(alone.effects).all() and np.isfinite(alone.curves).all()
    assert np.isnan(alone.errors).all() and np.isnan(alone.curve_errors).all()
    assert np.isfinite(pair.errors).all() and np.isfinite(pair.curve_errors).all()
    drawn = []
    for sheet in (alone, pair):
        figure = jaxai.plots.concept_sheet(sheet)
        assert jaxai.plots.render(figure).std() > 10
        bars, curves = figure.axes[-2:]
        drawn.append((len(bars.collections), len(curves.collections)))
    # A bar's error is a collection of lines, a curve's a filled band.
    assert drawn == [(0, 0), (1, 2)]
    pages = [jaxai.plots.concept_page([sheet]) for sheet in (alone, pair)]
    assert ["± –" in html.unescape(page) for page in pages] == [True, False]
    assert ["<polygon" in page for page in pages] == [False, True]
    assert all("nan" not in page.split("<main>")[1].split("<script")[0] for page in pages)


@pytest.mark.slow
def test_the_optimised_image_shows_the_concept():
    red, green = concept_sheets(
        NET, photos(4, 32), jnp.eye(3), layer="features", which=[0, 1], key=KEY, steps=30
    )
    assert red.drawn.shape == (32, 32, 3) and red.drawn.min() >= 0 and red.drawn.max() <= 1
    colours = np.stack([sheet.drawn.mean((0, 1)) for sheet in (red, green)])
    colours = colours - colours.mean(1, keepdims=True)
    assert colours[0].argmax() == 0 and colours[1].argmax() == 1
    assert colours[0, 0] > colours[1, 0] + 0.02 and colours[1, 1] > colours[0, 1] + 0.02
    # A network without classes has neither bars nor curves.
    plain = jaxai.chain({"features": lambda x: x, "logits": lambda a: a.mean(-1)})
    [sheet] = concept_sheets(plain, photos(), jnp.eye(3), layer="features", which=[0], key=KEY, steps=0)
    assert sheet.classes is None and sheet.curves is None
    assert jaxai.plots.concept_sheet(sheet).get_axes()


@pytest.mark.slow
def test_the_strongest_concepts_are_those_that_matter():
    x = photos(12)
    found = craft(NET, x, 1, layer="features", num_concepts=3, crop=4, key=KEY)
    sheets = concept_sheets(NET, x, found, which=2, key=KEY, steps=0)
    order = np.argsort(-np.asarray(found.importance))
    assert [sheet.concept for sheet in sheets] == order[:2].tolist()
    assert found.directions[order[0], 0] > 0.9
    trained = sae(NET(x, stop="features"), num_codes=6, k=1, key=KEY, steps=300, examples=128)
    amounts = np.asarray(trained.encode(NET(x, stop="features"))).max((1, 2))
    best = strongest_concepts(trained, amounts)[0]
    assert np.asarray(trained.usage)[best] < 0.5
    [sheet] = concept_sheets(NET, x, trained, layer="features", which=1, key=KEY, steps=0)
    assert sheet.concept == best


def test_errors():
    x = photos()
    with pytest.raises(ValueError, match="`concept` must be 0 to 2; got 3"):
        steer(NET, x, jnp.eye(3), 3, layer="features")
    with pytest.raises(ValueError, match="`factors` must be one number or more, all finite"):
        steer(NET, x, jnp.eye(3), 0, layer="features", factors=())
    with pytest.raises(ValueError, match="`which` must be concepts 0 to 2"):
        concept_sheets(NET, x, jnp.eye(3), layer="features", which=[5], key=KEY, steps=0)


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    network = tiny()
    monkeypatch.setattr(jaxai.models, "load", lambda name, dtype: network)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for i in range(4):
        Image.fromarray(rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)).save(tmp_path / f"in/{i}.png")

    def call(*words):
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return call


@pytest.mark.slow
@pytest.mark.parametrize("method", ["auto", "sae"])
def test_the_command_writes_a_sheet_for_each_concept(run, tmp_path, method, monkeypatch):
    from jaxai.cli import concepts

    monkeypatch.setattr(concepts, "_TRAINING", 50)
    options = ("--method", method, "--concepts", 3, "--sheets", 2, "--steps", 0, "--out", "out")
    options = (*options, "--html", "page.html")
    code, lines, _ = run("concepts", "in", *options)
    assert code == 0
    record = json.loads((tmp_path / "out/concepts.json").read_text())
    assert record["method"] == ("craft" if method == "auto" else "sae") and record["layer"] == "mixed"
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    drawn = [item["file"] for item in record["concepts"]]
    assert files == sorted(["concepts.json", "concepts.npz", *drawn]) and len(drawn) == 2
    for item in record["concepts"]:
        assert [photo["photo"][:3] for photo in item["photos"]] == ["in/"] * 4
        assert item["classes"][0]["name"] in LABELS
        with Image.open(tmp_path / "out" / item["file"]) as picture:
            assert picture.size[0] > 500
    assert np.load(tmp_path / "out/concepts.npz")["directions"].shape == (3, 6)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert lines[0] == "page.html" and page.count('class="map"') == 2 * 4
    for item in record["concepts"]:
        assert f'id="concept{item["concept"]}"' in page
    assert record["weights_sha256"] in page and record["summary"] in page and "0.png" in page
    assert lines[-1].startswith("mixed of efficientnet_lite0: 4 photos, 3 co")


@pytest.mark.slow
def test_the_record_of_one_photo_has_no_errors(run, tmp_path):
    code, _, _ = run("concepts", "in/0.png", "--concepts", 3, "--sheets", 1, "--steps", 0, "--out", "out")
    assert code == 0
    [concept] = json.loads((tmp_path / "out/concepts.json").read_text())["concepts"]
    assert all(item["error"] is None and item["effect"] is not None for item in concept["classes"])
    assert np.isnan(np.load(tmp_path / "out/concepts.npz")["importance_error"]).all()


def test_mistakes_give_one_line_and_write_nothing(run, tmp_path):
    (tmp_path / "in/0.png").write_bytes(b"no photo")
    code, _, errors = run("concepts", "in", "--html", "in/1.png")
    assert code == 2 and "in/1.png would replace" in errors[-1]
    code, _, errors = run("concepts", "in/0.png")
    assert code == 2 and len(errors) == 1 and errors[0].startswith("jaxai: error: in/0.png is not")
    code, _, errors = run("concepts", "in", "--concepts", 7, "--method", "craft")
    assert code == 2 and "`num_concepts` must be at most 6" in errors[-1]
    assert not (tmp_path / "concepts").exists()
