"""The networks are those that the reference describes, layer by layer."""

import os
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
import torchinfo
from torch import nn

from mnist_cnn.common.errors import InputError
from mnist_cnn.evaluation.summary import parameter_count, receptive_field
from mnist_cnn.layers import Network
from mnist_cnn.models import MODELS, build
from stages import train

BLANK = torch.zeros(1, 1, 28, 28)
# Of a layer: its kind, the shape of its output for one image, its parameters.
Layer = tuple[str, tuple[int, ...], int]

# In order, with the side of each layer's output. The padding is the usual one unless written.
LAYERS = {
    "model_1": (
        "c3 1→12, ReLU, c3 12→24, ReLU, pool, "
        "c1 24→12, c3 12→16, ReLU, c3 16→32, ReLU, c3 32→32, ReLU, pool, "
        "c1 32→12, c3 12→24, ReLU, c3 24→32, ReLU, "
        "c1 32→10, global average",
        [28] * 4 + [14] * 8 + [7] * 7 + [1],
    ),
    "model_2": (
        "c3 1→6, ReLU, c3 6→12, ReLU, pool, "
        "c1 12→6, c3 6→12, ReLU, c3 12→24, ReLU, pool, "
        "c1 24→6, c3 6→12, ReLU, c3 12→16, ReLU, "
        "c7 16→10",
        [28] * 4 + [14] * 6 + [7] * 6 + [1],
    ),
    "model_3": (
        "c3 1→6, BN, ReLU, c3 6→12, ReLU, pool, "
        "c1 12→6, c3 6→12, BN, ReLU, c3 12→24, BN, ReLU, pool, "
        "c1 24→6, c3 6→12, BN, ReLU, c3 12→16, "
        "c7 16→10",
        [28] * 5 + [14] * 8 + [7] * 6 + [1],
    ),
    "model_4": (
        "c3 1→6, BN, dropout, ReLU, c3 6→12, BN, dropout, ReLU, pool, "
        "c1 12→6, c3 6→12, BN, dropout, ReLU, c3 12→24, BN, dropout, ReLU, pool, "
        "c1 24→6, c3 6→12, BN, dropout, ReLU, c3 12→16, "
        "c1 16→10, 7x7 average, c1 10→10",
        [28] * 8 + [14] * 10 + [7] * 8 + [1] * 2,
    ),
}
USUAL_PADDING = {1: (0, 0), 3: (1, 1), 7: (0, 0)}


def normalised(channels: int, side: int, parameters: int, norm: int) -> list[Layer]:
    """A convolution with batch norm, dropout and ReLU."""
    shape = channels, side, side
    return [("Conv2d", shape, parameters), ("BatchNorm2d", shape, norm), ("Dropout", shape, 0), ("ReLU", shape, 0)]


# The reference's own table.
MODEL_5: list[Layer] = [
    *normalised(8, 28, 80, 16),
    *normalised(12, 28, 876, 24),
    ("MaxPool2d", (12, 14, 14), 0),
    ("Conv2d", (8, 16, 16), 104),
    *normalised(8, 14, 584, 16),
    *normalised(8, 12, 584, 16),
    *normalised(12, 10, 876, 24),
    *normalised(12, 8, 1308, 24),
    *normalised(12, 6, 1308, 24),
    ("Conv2d", (16, 4, 4), 1744),
    ("AdaptiveAvgPool2d", (16, 1, 1), 0),
    ("Conv2d", (10, 1, 1), 170),
]


def layers(network: nn.Module) -> list[Layer]:
    """The innermost layers, in the order in which an image passes them."""
    rows = torchinfo.summary(network, input_data=BLANK, mode="eval", verbose=0, depth=100).summary_list
    return [(row.class_name, tuple(row.output_size[1:]), row.num_params) for row in rows if row.is_leaf_layer]


def in_words(network: Network) -> list[str]:
    words = []
    for layer in network:
        match layer:
            case nn.Conv2d(kernel_size=(side, width), padding=padding) if side == width:
                unusual = "" if padding == USUAL_PADDING[side] else f" padding {padding}"
                words.append(f"c{side} {layer.in_channels}→{layer.out_channels}{unusual}")
            case nn.BatchNorm2d():
                words.append("BN")
            case nn.Dropout():
                words.append("dropout")
            case nn.ReLU():
                words.append("ReLU")
            case nn.MaxPool2d(kernel_size=2, stride=2, padding=0):
                words.append("pool")
            case nn.AvgPool2d(kernel_size=side, padding=0):
                words.append(f"{side}x{side} average")
            case nn.AdaptiveAvgPool2d(output_size=1):
                words.append("global average")
            case _:
                words.append(repr(layer))
    return words


def built(name: str, widths: tuple[int, ...] | None = None) -> Network:
    """A model of the story, which is a plain sequence of layers."""
    network = build(name, widths=widths)
    assert isinstance(network, Network)
    return network


def modules_after(program: str) -> set[str]:
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys; {program}; print(*sys.modules)"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(ended.stdout.split())


def test_the_storys_models_come_first_in_their_order() -> None:
    assert MODELS[:7] == ("model_1", "model_2", "model_3", "model_4", "model_5", "model_6", "model_7")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("model_1", 28_954), ("model_2", 14_478), ("model_3", 14_586), ("model_4", 7_040), ("model_5", 7_778)],
)
def test_parameter_counts(name: str, parameters: int) -> None:
    network = build(name)
    assert parameter_count(network) == sum(count for _, _, count in layers(network)) == parameters
    assert f"Total params: {parameters:,}" in train._layer_table(network, BLANK)


@pytest.mark.parametrize("name", LAYERS)
def test_models_1_to_4_have_the_layers_of_the_story_in_order(name: str) -> None:
    words, sides = LAYERS[name]
    network = built(name)
    assert in_words(network) == words.split(", ")
    channels, shapes = 1, []
    for word, side in zip(words.split(", "), sides, strict=True):
        channels = int(word.split("→")[1]) if "→" in word else channels
        shapes.append((channels, side, side))
    assert [shape for _, shape, _ in layers(network)] == shapes


def test_model_5_has_the_layer_table_of_the_reference() -> None:
    assert layers(build("model_5")) == MODEL_5


def test_model_3_is_model_2_with_batch_norm_and_without_the_last_relu() -> None:
    expected, convolutions = [], 0
    for word in in_words(built("model_2")):
        expected.append(word)
        convolutions += word.startswith("c3")
        if word.startswith("c3") and convolutions in (1, 3, 4, 5):
            expected.append("BN")
    del expected[len(expected) - 1 - expected[::-1].index("ReLU")]
    assert in_words(built("model_3")) == expected


@pytest.mark.parametrize("name", MODELS[:5])
def test_every_convolution_of_the_references_models_has_a_bias(name: str) -> None:
    assert all(layer.bias is not None for layer in built(name) if isinstance(layer, nn.Conv2d))


@pytest.mark.parametrize("name", MODELS[5:7])
def test_no_convolution_before_batch_norm_has_a_bias_in_the_others(name: str) -> None:
    network = list(built(name))
    for layer, following in pairwise(network):
        if isinstance(layer, nn.Conv2d):
            assert isinstance(following, nn.BatchNorm2d) == (layer.bias is None)


def test_a_model_with_widths_can_be_had_in_others() -> None:
    widths = [
        layer.out_channels for layer in built("model_6", widths=(3, 4, 5, 6, 7, 8)) if isinstance(layer, nn.Conv2d)
    ]
    assert widths == [3, 4, 5, 6, 7, 8, 10]


@pytest.mark.parametrize(("name", "widths"), [("model_6", (3, 4)), ("model_6", ()), ("model_5", (3, 4, 5, 6, 7, 8))])
def test_widths_that_do_not_fit_are_refused(name: str, widths: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=f"{name}: widths: .* is not allowed"):
        build(name, widths=widths)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [True, False])
def test_images_become_ten_logits_each(name: str, training: bool) -> None:
    network = build(name).train(training)
    for count in (2, 5) if training else (1, 2, 5):
        logits = network(torch.rand(count, 1, 28, 28))
        assert logits.shape == (count, 10)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_images_of_a_batch_do_not_influence_one_another_in_evaluation(name: str) -> None:
    network, images = build(name).eval(), torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(network(images)[2:3], network(images[2:3]))


def test_a_network_is_built_in_training_mode_from_the_global_generator() -> None:
    torch.manual_seed(3)
    first = build("model_2")
    assert first.training
    torch.manual_seed(3)
    for mine, again in zip(first.parameters(), build("model_2").parameters(), strict=True):
        assert torch.equal(mine, again)
    assert not torch.equal(first.get_parameter("0.weight"), build("model_2").get_parameter("0.weight"))


@pytest.mark.parametrize("name", ["model_0", "", "__init__", "_sources"])
def test_an_unknown_model_is_refused_by_naming_all(name: str) -> None:
    with pytest.raises(InputError) as error:
        build(name)
    assert repr(name) in str(error.value)
    assert all(model in str(error.value) for model in MODELS)


@pytest.mark.parametrize(("name", "count"), [("model_1", 0), ("model_3", 0), ("model_4", 5), ("model_5", 7)])
def test_dropout_is_off_unless_a_rate_is_given_and_then_in_every_dropout_layer(name: str, count: int) -> None:
    def rates(network: nn.Module) -> list[float]:
        return [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)]

    assert rates(build(name)) == rates(build(name, 0.0)) == [0.0] * count
    if count:
        assert rates(build(name, 0.25)) == [0.25] * count


@pytest.mark.parametrize("name", ["model_1", "model_2", "model_3"])
def test_dropout_is_refused_where_there_are_no_such_layers(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} .*0.2"):
        build(name, 0.2)


def test_building_a_model_imports_no_other_model() -> None:
    imported = modules_after("from mnist_cnn.models import build; build('model_1')")
    assert {name for name in imported if name.startswith("mnist_cnn.models.model_")} == {"mnist_cnn.models.model_1"}


def test_listing_the_models_and_reading_settings_do_not_load_pytorch() -> None:
    imported = modules_after("import mnist_cnn.models, mnist_cnn.settings.params")
    assert "mnist_cnn.settings.params" in imported
    assert "torch" not in imported


@pytest.mark.parametrize(
    ("name", "layers_after", "side"),
    [("model_1", 1, 36), ("model_2", 0, 56), ("model_3", 0, 56), ("model_4", 2, 32), ("model_5", 2, 30)],
)
def test_the_receptive_field_is_what_a_gradient_reaches(name: str, layers_after: int, side: int) -> None:
    network = built(name).eval().double()
    assert receptive_field(build(name)) == side
    # All weights positive and pooling by averages: nothing cancels, and nothing in reach is passed over.
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.01)
    kept = list(network)[: len(network) - layers_after]
    assert isinstance(kept[-1], nn.Conv2d)
    image = torch.ones(1, 1, 96, 96, dtype=torch.float64, requires_grad=True)
    positions = nn.Sequential(*[nn.AvgPool2d(2) if isinstance(layer, nn.MaxPool2d) else layer for layer in kept])(image)
    middle = positions.shape[-1] // 2
    positions[0, :, middle, middle].sum().backward()
    assert image.grad is not None
    reached = image.grad[0, 0].nonzero()
    assert (reached.amax(0) - reached.amin(0) + 1).tolist() == [side, side]


class Residual(nn.Module):
    """A block with a shortcut around it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(*layers)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        residual: torch.Tensor = self.block(input)
        return input + residual


class TwiceRead(Network):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) + super().forward(input.flip(-1))


def test_any_module_is_described_down_to_its_innermost_layers() -> None:
    inner = Residual(nn.Conv2d(4, 4, 3, padding=1), nn.Sequential(Residual(nn.GroupNorm(2, 4), nn.SiLU())))
    network = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), inner, nn.Flatten(), nn.Linear(4 * 13 * 13, 10))
    assert parameter_count(network) == 6966
    table = train._layer_table(network, BLANK)
    assert all(kind in table for kind in ("Residual", "Conv2d", "GroupNorm", "SiLU", "Flatten", "Linear", "6,966"))


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Conv2d(1, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        Network(nn.Conv2d(1, 4, 3), Residual(nn.Conv2d(4, 4, 3, padding=1)), nn.Conv2d(4, 10, 26)),
        Network(nn.Conv2d(1, 4, 3), nn.Upsample(scale_factor=0.5), nn.Conv2d(4, 10, 13)),
        Network(nn.Conv2d(1, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 10)),
        TwiceRead(nn.Conv2d(1, 10, 28)),
        Network(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(7), nn.Conv2d(4, 10, 7)),
        Network(nn.Conv2d(1, 10, (3, 5)), nn.AdaptiveAvgPool2d(1)),
    ],
    ids=["no plain network", "a block", "another layer", "a linear layer", "own forward", "averages", "no square"],
)
def test_there_is_no_receptive_field_where_it_does_not_follow_from_the_layers(network: nn.Module) -> None:
    assert network(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
    assert receptive_field(network) is None


def test_describing_a_network_changes_nothing() -> None:
    network = build("model_5")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random = torch.get_rng_state()
    train._layer_table(network, BLANK), receptive_field(network), parameter_count(network)
    assert all(module.training for module in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
