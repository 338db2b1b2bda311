"""The verbs of portfolios: to make, sign and serve them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command_options import (
    MOST_IMAGES,
    MOST_RUNS,
    Choose,
    DataFolder,
    Json,
    PublicKey,
    Seed,
    Target,
    Threads,
    Winograd,
)
from .terminal import answer

if TYPE_CHECKING:
    from ..answer import Answer

__all__ = ["portfolio", "serve", "sign"]


def portfolio(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="LEVELS|MODEL...", help="What train-levels wrote, or several .pt2; or one with --sparsity."
        ),
    ],
    sparsity: Annotated[
        list[float] | None,
        typer.Option("--sparsity", "-s", help="Prune MODEL to this share, too; 0: as is. Repeatable."),
    ] = None,
    method: Annotated[str, typer.Option("--method", "-m", help="How channels are scored then.")] = "magnitude",
    scope: Annotated[
        str, typer.Option(help="The share holds in every 'layer', or 'global' over all of them.")
    ] = "layer",
    name: Annotated[str | None, typer.Option(help="Of the portfolio; that of its folder unless given.")] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="Compile for it; the host unless given. Repeatable.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Measure accuracy on: cifar10 and others, as for train.")] = None,
    data: DataFolder = None,
    test_images: Annotated[
        int, typer.Option(min=0, max=10_000_000, help="How many of its test images; 0 for all.")
    ] = 0,
    batch: Annotated[int, typer.Option(min=1, max=MOST_IMAGES, help="Images a call of the variants takes.")] = 1,
    threads: Threads = 1,
    winograd: Winograd = "auto",
    choose: Choose = "model",
    repeat: Annotated[int, typer.Option(min=1, max=MOST_RUNS, help="Measured runs of every variant.")] = 50,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Model the latency on targets that are not here.")
    ] = False,
    dtype: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE", help="A variant of every model in float32, float16 or int8. Repeatable."),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|KIND",
            help="For int8, where no --dataset has images: a .npy or .npz file, or synthetic (matched, leaves, noise).",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the portfolio; beside the first source unless given."),
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Shrink sparse models without loss, compile and measure them, and put them into one folder to switch between."""
    from ..verbs import portfolio as verb

    def work() -> Answer:
        request = verb.Request(
            sources=tuple(sources),
            sparsities=tuple(sparsity or ()),
            method=method,
            scope=scope,
            name=name,
            targets=tuple(target or ("host",)),
            dataset=dataset,
            data=data,
            test_images=test_images,
            batch=batch,
            threads=threads,
            winograd=winograd,
            choose=choose,
            repeat=repeat,
            estimate=estimate,
            types=tuple(dtype or ("float32",)),
            calibration=calibration,
            output=output,
            seed=seed,
        )
        return verb.run(request)

    answer(json, work)


def serve(
    portfolio: Annotated[str, typer.Argument(metavar="PORTFOLIO", help="The folder of a portfolio.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="TCP port; 8000 unless there is a Unix socket, 0 for any free one."),
    ] = None,
    unix: Annotated[Path | None, typer.Option(metavar="PATH", help="Also, or only, listen on a Unix socket.")] = None,
    variant: Annotated[str | None, typer.Option(help="What answers first; else the one that did last.")] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="What switches variants: latency, queue, memory, power, or hand. Repeatable."),
    ] = None,
    objective: Annotated[
        float | None, typer.Option("--objective-ms", help="For latency: what 95 of 100 requests stay below.")
    ] = None,
    reserve: Annotated[
        int, typer.Option("--reserve-mib", min=1, max=1 << 20, help="For memory: what is to be left.")
    ] = 256,
    queue_high: Annotated[float, typer.Option(help="For queue: the mean length that is too much.")] = 8.0,
    dwell: Annotated[float, typer.Option(help="Seconds that a variant answers at least.")] = 10.0,
    threads: Threads = 1,
    queue: Annotated[int, typer.Option(min=1, max=100_000, help="Requests that may wait; others get 503.")] = 64,
    timeout: Annotated[float, typer.Option(min=0.001, max=86_400, help="Seconds that a request may take.")] = 30.0,
    body: Annotated[int, typer.Option("--body-mib", min=1, max=1 << 14, help="Size that a request may have.")] = 64,
    bodies: Annotated[
        int,
        typer.Option("--bodies-mib", min=1, max=1 << 20, help="Size that all requests under way may have together."),
    ] = 256,
    connections: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Connections that may be open; for one more, an idle one goes.")
    ] = 1024,
    control: Annotated[bool, typer.Option(help="Let clients switch variants.")] = True,
    control_token: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with what clients must know to switch, but over a Unix socket; or set RECONVENE_CONTROL_TOKEN.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Name under which clients that switch reach the server. Repeatable."),
    ] = None,
    public_key: PublicKey = None,
    state: Annotated[Path | None, typer.Option(help="File that notes which variant is served.")] = None,
    private_copy: Annotated[
        bool, typer.Option("--private-copy", help="Copy a variant's files into sealed memory instead of mapping them.")
    ] = False,
    target: Target = "host",
    json: Json = False,
) -> None:
    """Serve a portfolio over HTTP, and switch between its variants while it answers."""
    from ..verbs import serve as verb

    request = verb.Request(
        portfolio=portfolio,
        host=host,
        port=port,
        unix=unix,
        target=target,
        variant=variant,
        threads=threads,
        policies=tuple(policy or ()),
        objective_ms=objective,
        reserve_mib=reserve,
        queue_high=queue_high,
        dwell=dwell,
        queue=queue,
        timeout=timeout,
        body_mib=body,
        bodies_mib=bodies,
        connections=connections,
        control=control,
        control_token=control_token,
        private=private_copy,
        hosts=tuple(allow_host or ()),
        state=state,
        public_key=public_key,
    )
    answer(json, lambda: verb.run(request))


def sign(
    folder: Annotated[
        str | None, typer.Argument(metavar="BUNDLE|PORTFOLIO", help="What to sign.", show_default=False)
    ] = None,
    secret_key: Annotated[Path | None, typer.Option(metavar="FILE", help="minisign's, without a password.")] = None,
    new_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Make a key there, and FILE.pub beside it, and sign nothing.")
    ] = None,
    json: Json = False,
) -> None:
    """Sign a bundle or a portfolio, so that --public-key tells who made it."""
    from ..verbs import sign as verb

    answer(json, lambda: verb.run(verb.Request(folder, secret_key, new_key)))
