"""What one does with a store: means, orders, clusters, comparisons, scores, and the page."""

import json
import re
import shutil

import data_sets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from browsing import visited
from PIL import Image

import jaxai
from jaxai.dataset import _clusters, _thumbnails

ATTACK = "<script>document.title='owned'</script>\"'><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def net(pooled_net):
    return data_sets.network(pooled_net)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return data_sets.photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def store(net, folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("store")
    rated = {"gini": {}, "insertion": {"steps": 4}}
    data_sets.planned(net, folder, place, targets="both", metrics=rated)
    jaxai.dataset.run(place, net=net)
    return jaxai.dataset.open(place)


@pytest.mark.slow
def test_scores_of_metrics_are_columns(net, folder, store):
    assert store.plan.metrics == (("gini", {}), ("insertion", {"steps": 4}))
    for row in store.table().to_pylist():
        for method, options in (("grad_cam", {"upsample": False}), ("saliency", {})):
            found = [row[f"{metric}:{method}"] for metric in ("gini", "insertion")]
            if row["error"]:
                assert found == [None, None]
                continue
            images = net.normalize(net.crop(folder / row["path"]))
            maps = [getattr(jaxai, method)(net.model, images, t, **options) for t in row["target"]]
            maps = [m.sum(-1) if m.ndim == 4 else jaxai.maps.upsample(m, (16, 16)) for m in maps]
            expected = [jaxai.metrics.gini(m)[0] for m in maps]
            np.testing.assert_allclose(np.array(found[0], float), np.array(expected), 1e-4)
            expected = [
                jaxai.metrics.insertion(net.model, images, m, t, steps=4).area[0]
                for m, t in zip(maps, row["target"], strict=True)
            ]
            np.testing.assert_allclose(np.array(found[1], float), np.array(expected), 1e-4)


def test_worst_are_those_that_a_metric_rates_lowest(store):
    rows = [row for row in store.table().to_pylist() if row["error"] is None]
    for method in ("grad_cam", "saliency"):
        values = sorted((row[f"insertion:{method}"][0], row["index"]) for row in rows)
        found = store.worst("insertion", method, 4)
        assert [row["index"] for row in found] == [index for _, index in values[:4]]
    with pytest.raises(ValueError, match="the plan has the metrics gini, insertion; got 'road'"):
        store.worst("road")


@pytest.mark.parametrize(
    "metrics, error",
    [
        ("magic", "magic"),
        ("pointing_game", "unknown metric"),
        ("max_sensitivity", "max_sensitivity needs the method itself"),
        ("irof", "irof needs segments"),
        ({"insertion": {"colour": 1}}, "insertion has no option 'colour'; it has steps"),
        ({"insertion": {"steps": -1}}, "insertion: `steps`"),
        ({"insertion": {"fill": lambda x: x}}, "must be a number, a text or a list"),
        (("gini", "gini"), "`metrics` names gini twice"),
    ],
)
def test_metrics_that_are_refused(net, folder, tmp_path, metrics, error):
    with pytest.raises(ValueError, match=error):
        data_sets.planned(net, folder, tmp_path / "store", metrics=metrics)
    assert not (tmp_path / "store").exists()


def test_thumbnails_are_the_images_as_the_network_sees_them(net, folder, store):
    content = (store.path / "thumbnails/00001.jpg").read_bytes()
    tiles = _thumbnails.cut(content, 4, 16)
    for number, tile in zip(range(4, 8), tiles, strict=True):
        row = store.table().to_pylist()[number]
        if row["error"]:
            assert tile.std() == 0
            continue
        photo = np.asarray(net.crop(folder / row["path"]))[0]
        # Noise is what a JPEG keeps worst.
        assert np.corrcoef(photo.ravel(), tile.ravel())[0, 1] > 0.9


def groups_of_maps():
    """Maps that look at three places, the third seldom."""
    rng = np.random.default_rng(0)
    maps, truth = [], []
    for group, count in enumerate((30, 24, 9)):
        for _ in range(count):
            one = 0.05 * rng.uniform(size=(12, 12))
            y, x = ((1, 1), (7, 7), (1, 8))[group]
            one[y : y + 4, x : x + 4] += 1
            maps.append(one * rng.uniform(0.5, 2))
            truth.append(group)
    return np.array(maps, np.float32), np.array(truth)


def test_clusters_find_groups_and_their_number():
    maps, truth = groups_of_maps()
    order = np.random.default_rng(1).permutation(len(maps))
    found = _clusters.of_maps(order, maps[order], num_clusters=None, neighbors=5, seed=0)
    assert len(found) == 3 and (found.eigenvalues[:3] < 1e-6).all() and found.eigenvalues[3] > 0.05
    for cluster in range(3):
        assert set(truth[found.members(cluster)]) == {cluster}
        shares = maps[truth == cluster] / np.abs(maps[truth == cluster]).sum((1, 2), keepdims=True)
        np.testing.assert_allclose(found.means[cluster], shares.mean(0), 1e-4, 1e-7)


def test_clusters_are_those_of_scikit_learn():
    from sklearn.cluster import SpectralClustering
    from sklearn.metrics import adjusted_rand_score

    rng = np.random.default_rng(3)
    # Overlapping, so that the graph is in one piece.
    centres = rng.uniform(size=(2, 6, 6))
    maps = np.concatenate([c + rng.uniform(size=(40, 6, 6)) for c in centres]).astype(np.float32)
    found = _clusters.of_maps(np.arange(80), maps, num_clusters=2, neighbors=30, seed=0)
    shares = (maps / maps.sum((1, 2), keepdims=True)).reshape(80, -1)
    from sklearn.neighbors import kneighbors_graph

    graph = kneighbors_graph(shares, 30, include_self=False)
    theirs = SpectralClustering(2, affinity="precomputed", random_state=0)
    expected = theirs.fit_predict(graph.maximum(graph.T).toarray())
    assert adjusted_rand_score(found.labels, expected) == 1
    # The Laplacian of many maps is sparse.
    values, _ = _clusters._spectrum(graph.maximum(graph.T).tocsr(), 6)
    laplacian = np.eye(80) - (lambda a, d: a / np.sqrt(np.outer(d, d)))(
        graph.maximum(graph.T).toarray(), np.asarray(graph.maximum(graph.T).sum(1)).ravel()
    )
    np.testing.assert_allclose(values, np.linalg.eigvalsh(laplacian)[:6], atol=1e-9)


def test_a_large_graph_has_the_spectrum_of_a_dense_one(monkeypatch):
    maps, _ = groups_of_maps()
    dense = _clusters.of_maps(np.arange(63), maps, num_clusters=None, neighbors=8, seed=0)
    monkeypatch.setattr(_clusters, "_DENSE", 10)
    sparse = _clusters.of_maps(np.arange(63), maps, num_clusters=None, neighbors=8, seed=0)
    np.testing.assert_allclose(sparse.eigenvalues[:6], dense.eigenvalues[:6], atol=1e-6)
    np.testing.assert_array_equal(sparse.labels, dense.labels)


def test_clusters_that_are_refused(store):
    with pytest.raises(ValueError, match="at least 4 maps without errors; got 2"):
        _clusters.of_maps(np.arange(3), np.full((3, 2, 2), [[[np.nan]], [[1]], [[2]]]), **OPTIONS)
    with pytest.raises(ValueError, match="no image of the class kind 6 is explained .by label"):
        store.clusters(of="kind 6", by="label")
    found = store.clusters("saliency", num_clusters=2)
    assert len(found) == 2 and len(found.images) == 10
    with pytest.raises(IndexError, match="from 0 to 1"):
        found.members(2)


OPTIONS = {"num_clusters": None, "neighbors": 2, "seed": 0}


def test_two_checkpoints_are_compared(net, folder, store, tmp_path):
    weights = jnp.asarray(np.random.default_rng(7).normal(size=(3, 7)), jnp.float32)
    other_net = data_sets.network(jax.tree_util.Partial(lambda w, x: jnp.tanh(x).mean((1, 2)) @ w, weights))
    photos = shutil.copytree(folder, tmp_path / "photos")
    changed = photos / "kind 0" / "000.png"
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(changed)
    data_sets.planned(other_net, photos, tmp_path / "store", methods="saliency")
    jaxai.dataset.run(tmp_path / "store", net=other_net)
    other = jaxai.dataset.open(tmp_path / "store")
    found = jaxai.dataset.compare(store, other)
    # One is broken, and one is another photo.
    assert len(found) == 9 and found.left_out == 4 and found.methods == ("saliency", "saliency")
    mine, theirs = ({row["path"]: row for row in s.table().to_pylist()} for s in (store, other))
    for k, path in enumerate(found.paths):
        a, b = mine[path], theirs[path]
        assert tuple(found.classes[k]) == (store.name_of(a["top"][0]), other.name_of(b["top"][0]))
        first, second = store.maps["saliency"][a["index"], 0], other.maps["saliency"][b["index"]]
        expected = np.corrcoef(first.ravel(), second.ravel())[0, 1]
        np.testing.assert_allclose(found.similarity[k], expected, atol=2e-3, equal_nan=True)
    assert f"the same class in {found.same.mean():.1%}" in str(found)
    rows = found.table().to_pylist()
    assert [row["similarity"] for row in rows] == sorted(found.similarity.tolist(), key=np.nan_to_num)
    with pytest.raises(ValueError, match="maps of saliency; got 'grad_cam'"):
        jaxai.dataset.compare(store, other, methods=("grad_cam", "grad_cam"))


def test_two_methods_of_one_store_are_compared(store):
    found = jaxai.dataset.compare(store, store)
    assert found.methods == ("grad_cam", "saliency") and len(found) == 10 and found.same.all()
    itself = jaxai.dataset.compare(store, store, methods=("saliency", "saliency"))
    np.testing.assert_allclose(itself.similarity, 1, atol=1e-5)


@pytest.fixture(scope="module")
def paged(net, tmp_path_factory):
    """A store whose names attack, and a page of it."""
    from dataclasses import replace

    place = tmp_path_factory.mktemp("paged")
    photos = place / "photos"
    for number in range(24):
        path = photos / f"{ATTACK.replace('/', '_')} {number % 2}" / f"<b>{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    path.write_bytes(b"no photo")
    named = replace(net, labels=(f"{ATTACK} 0", *net.labels[1:]), name=f"net {ATTACK}")
    data_sets.planned(named, photos, place / "store", metrics="gini", methods=["grad_cam", "saliency"])
    jaxai.dataset.run(place / "store", net=named)
    data_sets.planned(named, photos, place / "other", methods="saliency")
    jaxai.dataset.run(place / "other", net=named)
    one, two = (jaxai.dataset.open(place / name) for name in ("store", "other"))
    jaxai.dataset.page(one, place / "page", other=two, clusters=True)
    return place


def test_names_are_data_and_nothing_is_fetched(paged):
    page = (paged / "page" / "index.html").read_text()
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    content = json.loads(block)
    assert "<" not in block and any("<b>" in path for path in content["path"])
    rest = page.replace(block, "")
    assert "<script>document" not in rest and "onerror" not in rest.replace("&lt;img src=x onerror", "")
    assert not re.search(r"https?://|@import", rest) and "default-src 'none'" in rest
    assert content["error"] == {"23": content["error"]["23"]}
    assert len(content["rated"]) == 2 and sum(c >= 0 for c in content["clusters"]["of"]) in (
        0,
        *range(10, 24),
    )
    sheets = {path.parent.name for path in (paged / "page" / "sheets").rglob("*.jpg")} - {"clusters"}
    assert sheets == {
        "photos", "grad_cam", "saliency", "means-grad_cam", "means-saliency", "other",
    }  # fmt: skip


def test_pages_are_written_again_and_other_folders_are_not(paged, store, tmp_path):
    jaxai.dataset.page(store, tmp_path / "page")
    again = jaxai.dataset.page(store, tmp_path / "page", images=[2, 0])
    block = re.search(r'id="data">(.*?)</script>', again.read_text(), re.DOTALL)[1]
    assert json.loads(block)["path"] == [store.plan.paths[2], store.plan.paths[0]]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="is not empty and holds no page"):
        jaxai.dataset.page(store, tmp_path / "mine")
    with pytest.raises(ValueError, match="image 99 is not explained"):
        jaxai.dataset.page(store, tmp_path / "page", images=[99])


@pytest.mark.slow
@pytest.mark.parametrize("width, scheme", [(1280, "light"), (1280, "dark"), (390, "light")])
def test_the_page_in_a_browser(paged, browser, width, scheme):
    context, shown, said = visited(browser, paged / "page" / "index.html", width, scheme)
    shown.wait_for_selector("body[data-ready] .image")
    assert shown.title() == "store: 24 images"
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.locator("#rows .tile").count() > 8
    shown.wait_for_load_state("networkidle")
    assert said == []
    assert shown.locator("#count").inner_text() == "24 of 24 images"
    shown.fill("input[type=search]", "<b>23")
    shown.wait_for_selector("#count:text('1 of 24')")
    assert "not an image" in shown.locator(".image .mark").first.inner_text()
    shown.fill("input[type=search]", "")
    shown.wait_for_selector("#count:text('24 of 24')")
    shown.select_option("select >> nth=1", "uncertain")
    content = json.loads(shown.locator("#data").text_content())
    margins = np.subtract(*content["probability"])
    first = min(range(23), key=lambda i: margins[i])
    assert content["path"][first] == shown.locator(".image .path").first.inner_text()
    shown.locator("summary").first.click()
    shown.locator(".card").first.click()
    assert shown.locator("#count").inner_text() != "24 of 24 images"
    assert said == []
    context.close()
