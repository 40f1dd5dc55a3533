"""What the shell completes."""

from __future__ import annotations

from click import (
    Choice,
    Context,
    Parameter,
    argument,
    command,
    echo,
    pass_context,
)
from click.shell_completion import CompletionItem, get_completion_class

from flux_api.errors import BadSetting
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.toml_file import load_models
from flux_api.settings import Settings

VARIABLE = "_FLUX_API_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


def complete_model(
    context: Context, _parameter: Parameter, incomplete: str
) -> list[CompletionItem]:
    """The models whose names begin like ``incomplete``."""
    # Those that come with it, whatever is wrong with the operator's own file.
    models = MODEL_INFO
    try:
        settings = Settings.from_env(context.obj)
        models = load_models(settings.model_info, MODEL_INFO)
    except BadSetting:
        pass  # Said when the command runs.
    return [
        CompletionItem(name, help=info.description)
        for name, info in models.items()
        if name.startswith(incomplete)
    ]


@command()
@argument("shell", type=Choice(SHELLS))
@pass_context
def completion(context: Context, shell: str) -> None:
    """Print what lets your shell complete commands, options and models.

    \b
    eval "$(flux-api completion bash)"                 # in ~/.bashrc
    eval "$(flux-api completion zsh)"                  # in ~/.zshrc
    flux-api completion fish > ~/.config/fish/completions/flux-api.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    program = context.find_root().command
    echo(found(program, {}, "flux-api", VARIABLE).source())
