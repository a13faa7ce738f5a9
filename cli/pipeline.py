"""The stages from data to archive: train, export, quantise, evaluate, gate, package. Each reads files and writes files."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.params import section

Name = Annotated[str, typer.Option("--name", help="The run; its files lie in build/NAME.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one number of params.yaml, as train.epochs=5.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
BUILD = Path("build")
DECIDE_WEIGHTS = ("train", "network", "dataset", "transforms", "device")  # modules of model/
MADE_BY = {
    "index.csv": "data synth",
    "train.json": "train",
    "weights.safetensors": "train",
    "model.onnx": "export",
    "model.int8.onnx": "quantise",
    "evaluation.json": "evaluate",
    "gate.json": "gate",
}


def register(app: typer.Typer) -> None:
    """Add this file's commands to the command line, in the order in which they run."""
    for command in (train, export, quantise, evaluate, gate, package):
        app.command()(command)


def train(name: Name = "demo", overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Fine-tune the network on the run's images; goes on where a killed run stopped, and does nothing if it is done."""
    from cli.served_path import decode_for
    from model import train as training
    from model.plots import curves
    from model.shards import data_digest
    from model.tracking import git_state, record

    data, target = BUILD / name / "data", BUILD / name / "train"
    params = section("train", training.train, run=name, overrides=overrides or ())
    digest = data_digest(_made(data / "index.csv").parent)
    fingerprint = _fingerprint(digest, params, _sources(*DECIDE_WEIGHTS))
    done = _read(target / "train.json") if (target / "train.json").exists() else {}
    if done.get("fingerprint") == fingerprint:
        return _tell(done, f"Already trained with these parameters on this data: {_trained(done)}", as_json=as_json)
    (target / "train.json").unlink(missing_ok=True)  # from here on it would describe weights that are no longer there
    result = training.train(data, target, decode_for, fingerprint, **params)
    result |= {"fingerprint": fingerprint, "data_digest": digest, "params": params, "git": git_state()}
    curves(target / "metrics.jsonl", target / "curves.svg")
    try:
        result["mlflow_run"] = record(name, params, result, data_digest=digest, folder=target)
    except Exception as error:  # a tracking server that is down must not cost a finished training
        Console(stderr=True).print(f"[yellow]not recorded in MLflow:[/] {escape(str(error))}")
    _write(target / "train.json", result)
    _tell(
        result,
        f"{_trained(result)}\nWeights, curves and metrics: {target}. Runs: mlflow ui --backend-store-uri sqlite:///mlflow.db",
        as_json=as_json,
    )


def export(name: Name = "demo", as_json: AsJson = False) -> None:
    """Write the trained network as ONNX, from bytes of pixels to logits and embedding, and check it against torch."""
    from safetensors.torch import load_file

    from model import network
    from model.export import export_onnx

    trained, target = _trained_run(name), BUILD / name / "export"
    net = network.build(trained["arch"], len(trained["labels"]))
    net.load_state_dict(load_file(_made(BUILD / name / "train" / "weights.safetensors")))
    difference = export_onnx(net, target / "model.onnx", size_px=trained["size_px"])
    _write(target / "export.json", {"max_logit_difference": difference, "size_px": trained["size_px"]})
    _tell({"max_logit_difference": difference}, f"{target / 'model.onnx'}: logits within {difference:.1g} of torch's", as_json=as_json)


def quantise(name: Name = "demo", overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Write the INT8 form of the ONNX file, calibrated on the calibration split, filled up from the training split."""
    from cli.served_path import decode_for
    from model.quantise import quantise_onnx
    from model.shards import read_bytes, read_index

    trained, data, target = _trained_run(name), BUILD / name / "data", BUILD / name / "export"
    params = section("quantise", quantise_onnx, run=name, overrides=overrides or ())
    decode = decode_for(trained["size_px"])
    records = [*read_index(data, split="calib"), *read_index(data, split="train")][: params["max_images"]]
    images = [decode(read_bytes(data, record))[None] for record in records]
    quantise_onnx(_made(target / "model.onnx"), target / "model.int8.onnx", images, **params)
    sizes = {path.name: path.stat().st_size for path in (target / "model.onnx", target / "model.int8.onnx")}
    _tell(
        {"calibration_images": len(images), "bytes": sizes},
        f"{target / 'model.int8.onnx'}: {sizes['model.int8.onnx'] / 1e6:.1f} MB from {sizes['model.onnx'] / 1e6:.1f} MB, "
        f"calibrated on {len(images)} images",
        as_json=as_json,
    )


def evaluate(name: Name = "demo", overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Measure the exported files, decoded and run as they are served, on images that training never saw."""
    from cli.evaluation import evaluate_run
    from model.plots import confusion, reliability

    trained, target = _trained_run(name), BUILD / name / "evaluate"
    for file in ("model.onnx", "model.int8.onnx"):
        _made(BUILD / name / "export" / file)
    target.mkdir(parents=True, exist_ok=True)
    report = evaluate_run(BUILD / name, trained, **section("evaluate", evaluate_run, run=name, overrides=overrides or ()))
    _write(target / "evaluation.json", report)
    confusion(report["variants"]["int8"]["confusion"], trained["labels"], target / "confusion.svg")
    reliability(
        {variant: row["calibration"] for variant, row in report["variants"].items() if variant in ("fp32", "int8")},
        target / "reliability.svg",
    )
    if as_json:
        return typer.echo(json.dumps(report))
    table = Table("variant", "top-1", "95 % interval", "macro-F1", "worst recall", "ECE", "ms an image", title=f"{name}, test split")
    for variant, row in report["variants"].items():
        low, high = row["top1_interval"]
        time = report["latency"]["median_ms"].get(variant)
        table.add_row(
            variant, f"{row['top1']:.2%}", f"{low:.1%} to {high:.1%}", f"{row['macro_f1']:.4f}", f"{min(row['recall'].values()):.1%}",
            f"{row['ece']:.3f}", f"{time:.2f}" if time else "",
        )  # fmt: skip
    Console().print(table)
    for pair, row in report["agreement"].items():
        Console().print(f"{pair}: same top-1 on {row['same_top1']:.2%} of {row['images']} held-out images", highlight=False)


def gate(name: Name = "demo", overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Decide from the evaluation whether the candidate may be packaged, and in which form; exit 1 if not."""
    from model.gate import judge

    params, report = section("gate", judge, run=name, overrides=overrides or ()), BUILD / name / "evaluate" / "evaluation.json"
    try:
        verdict = judge(_read(report), **params)
    except KeyError as error:
        raise ValueError(f"{report} has no {error}: run `slipway evaluate --name {name}` again") from None
    _write(BUILD / name / "gate.json", verdict)
    if as_json:
        typer.echo(json.dumps(verdict))
    else:
        table = Table("rule", "got", "wanted", "", title=f"gate of {name}")
        for rule in verdict["quantisation"] + verdict["accuracy"]:
            table.add_row(escape(rule["name"]), f"{rule['got']:.4g}", rule["wanted"], "[green]ok[/]" if rule["passed"] else "[red]no[/]")
        Console().print(table)
        Console().print(("[green]passed:[/] " if verdict["passed"] else "[red]refused:[/] ") + escape(verdict["reason"]), highlight=False)
    if not verdict["passed"]:
        raise typer.Exit(1)


def package(
    name: Name = "demo",
    overrides: Overrides = None,
    verify: Annotated[Path | None, typer.Option(help="Check this archive instead: structure, hashes, golden images.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write build/NAME.mar: network, handler, labels, golden images, drift reference, lineage and gate report in one file."""
    if verify is not None:
        from serving.archive import verify as check

        archive, hashes = check(verify)
        return _tell(
            {"digest": archive.digest, "members": hashes},
            f"{verify} is whole: sha256 {archive.digest}\n"
            f"{len(hashes)} members, {len(archive.about['golden'])} golden images predict as recorded",
            as_json=as_json,
        )
    from cli.packaging import package_run

    verdict = _read(BUILD / name / "gate.json")
    if not verdict["passed"]:
        raise ValueError(
            f"the gate refused {name}: {verdict['reason']}. Train it better, or change the gate in params.yaml and run it again"
        )
    target = BUILD / f"{name}.mar"
    digest = package_run(
        BUILD / name, target, _trained_run(name), verdict, **section("package", package_run, run=name, overrides=overrides or ())
    )
    _tell(
        {"archive": str(target), "digest": digest, "bytes": target.stat().st_size, "variant": verdict["variant"]},
        f"{target}: {target.stat().st_size / 1e6:.1f} MB, {verdict['variant']}, sha256 {digest}\nNext: slipway serve {target}",
        as_json=as_json,
    )


def _trained_run(name: str) -> dict[str, Any]:
    return _read(BUILD / name / "train" / "train.json")


def _fingerprint(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _sources(*modules: str) -> list[str]:
    """The digest of each module's source: another program may train other weights."""
    import model

    return [hashlib.sha256((Path(model.__path__[0]) / f"{module}.py").read_bytes()).hexdigest() for module in modules]


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(_made(path).read_text())
    return content


def _made(path: Path) -> Path:
    """`path`, which another stage of the run has written; FileNotFoundError that names the stage when it has not."""
    if not path.exists():
        raise FileNotFoundError(f"no {path}: run `slipway {MADE_BY[path.name]} --name {path.relative_to(BUILD).parts[0]}` first")
    return path


def _write(path: Path, content: Any) -> None:
    temporary = path.with_name(f".partial.{path.name}")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)


def _trained(result: dict[str, Any]) -> str:
    best = result["best"]
    return (
        f"{result['arch']}, {result['start']}: validation top-1 {best['val_top1']:.2%} at epoch {best['epoch']} of {result['epochs']}, "
        f"{result['train_seconds']:.0f} s"
    )


def _tell(result: Any, words: str, *, as_json: bool) -> None:
    typer.echo(json.dumps(result) if as_json else words)
