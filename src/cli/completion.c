// SPDX-License-Identifier: Apache-2.0
// Completion scripts, made from the option tables. Names, choices and help texts are ours, so only the characters
// that they really hold need quoting: a quote, brackets and colons in help texts.
#include "cli/completion.h"

#include <string.h>

#include "cli/cli.h"

// Names of running VMs, one a line.
#define VM_NAMES "cicada ps 2>/dev/null | sed '1d;s/ .*//'"

// "a|b" as "a b".
static void print_choices(FILE *out, const char *choices) {
    for (; *choices; choices++)
        fputc(*choices == '|' ? ' ' : *choices, out);
}

// The first line of a help text, with a backslash before each character of `quote`.
static void print_quoted(FILE *out, const char *text, const char *quote) {
    for (; *text; text++) {
        if (strchr(quote, *text))
            fputc('\\', out);
        fputc(*text == '\n' ? ' ' : *text, out);
    }
}

// ---- bash ----

static void bash_options(FILE *out, const struct cli_command *c) {
    fprintf(out, "    %s) words='--help", c->name);
    for (unsigned i = 0; i < c->options->count; i++)
        fprintf(out, " --%s", c->options->defs[i].name);
    fprintf(out, "' ;;\n");
}

static void bash_value(FILE *out, const struct cli_command *c, const struct option_def *o) {
    if (!o->metavar || o->optional) // the word behind an optional value is another one
        return;
    fprintf(out, "    %s,--%s", c->name, o->name);
    if (o->short_name)
        fprintf(out, "|%s,-%c", c->name, o->short_name);
    if (o->choices) {
        fprintf(out, ") COMPREPLY=($(compgen -W '");
        print_choices(out, o->choices);
        fprintf(out, "' -- \"$cur\")); return ;;\n");
    } else if (o->complete == OPTION_COMPLETE_FILE) {
        fprintf(out, ") compopt -o default; return ;;\n");
    } else {
        fprintf(out, ") return ;;\n");
    }
}

static void bash_positional(FILE *out, const struct cli_command *c) {
    bool names = c->options->positional_complete == OPTION_COMPLETE_VM;
    const char *choices = c->options->positional_choices;
    if (!names && !choices)
        return;
    fprintf(out, "    %s) words+=\"", c->name);
    if (names)
        fprintf(out, " $(" VM_NAMES ")");
    if (choices) {
        fputc(' ', out);
        print_choices(out, choices);
    }
    fprintf(out, "\" ;;\n");
}

void completion_bash(FILE *out) {
    fprintf(out,
            "# bash completion for cicada: source <(cicada completion bash)\n_cicada() {\n"
            "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd=${COMP_WORDS[1]} words=\n"
            "    COMPREPLY=()\n    if ((COMP_CWORD == 1)); then\n        COMPREPLY=($(compgen -W '");
    for (unsigned i = 0; cli_commands[i]; i++)
        fprintf(out, "%s%s", i ? " " : "", cli_commands[i]->name);
    fprintf(out, "' -- \"$cur\"))\n        return\n    fi\n    case $cmd,$prev in\n");
    for (unsigned i = 0; cli_commands[i]; i++)
        for (unsigned j = 0; j < cli_commands[i]->options->count; j++)
            bash_value(out, cli_commands[i], &cli_commands[i]->options->defs[j]);
    fprintf(out, "    esac\n    case $cmd in\n");
    for (unsigned i = 0; cli_commands[i]; i++)
        bash_options(out, cli_commands[i]);
    fprintf(out, "    esac\n    case $cmd in\n");
    for (unsigned i = 0; cli_commands[i]; i++)
        bash_positional(out, cli_commands[i]);
    fprintf(out, "    esac\n"
                 "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\ncomplete -F _cicada cicada\n");
}

// ---- zsh ----

static void zsh_option(FILE *out, const struct option_def *o) {
    fprintf(out, " \\\n            '%s--%s%s[", o->repeat ? "*" : "", o->name,
            o->optional  ? "=-"
            : o->metavar ? "="
                         : "");
    print_quoted(out, o->help, "[]:");
    fputc(']', out);
    if (o->metavar) {
        fprintf(out, o->optional ? "::value:" : ":value:");
        if (o->choices) {
            fputc('(', out);
            print_choices(out, o->choices);
            fputc(')', out);
        } else if (o->complete == OPTION_COMPLETE_FILE) {
            fprintf(out, "_files");
        }
    }
    fputc('\'', out);
}

static void zsh_positional(FILE *out, const struct cli_command *c) {
    bool names = c->options->positional_complete == OPTION_COMPLETE_VM;
    if (names)
        fprintf(out, " \\\n            '1:name:($(_cicada_vms))'");
    if (!c->options->positional_choices)
        return;
    fprintf(out, " \\\n            '%d:word:(", names ? 2 : 1);
    print_choices(out, c->options->positional_choices);
    fprintf(out, ")'");
}

void completion_zsh(FILE *out) {
    fprintf(out, "#compdef cicada\n# zsh completion for cicada: source <(cicada completion zsh)\n"
                 "_cicada_vms() { " VM_NAMES " }\n_cicada() {\n    local -a commands=(\n");
    for (unsigned i = 0; cli_commands[i]; i++) {
        fprintf(out, "        '%s:", cli_commands[i]->name);
        print_quoted(out, cli_commands[i]->summary, ":");
        fprintf(out, "'\n");
    }
    fprintf(out, "    )\n    if ((CURRENT == 2)); then\n        _describe command commands\n        return\n    fi\n"
                 "    local cmd=$words[2]\n    words=(\"${(@)words[2,-1]}\")\n    ((CURRENT--))\n    case $cmd in\n");
    for (unsigned i = 0; cli_commands[i]; i++) {
        fprintf(out, "        %s) _arguments '--help[show the options]'", cli_commands[i]->name);
        for (unsigned j = 0; j < cli_commands[i]->options->count; j++)
            zsh_option(out, &cli_commands[i]->options->defs[j]);
        zsh_positional(out, cli_commands[i]);
        fprintf(out, " ;;\n");
    }
    fprintf(out, "    esac\n}\ncompdef _cicada cicada\n");
}

// ---- fish ----

static void fish_option(FILE *out, const struct cli_command *c, const struct option_def *o) {
    fprintf(out, "complete -c cicada -n '__fish_seen_subcommand_from %s' -l %s", c->name, o->name);
    if (o->short_name)
        fprintf(out, " -s %c", o->short_name);
    if (o->metavar && !o->optional)
        fprintf(out, " -r");
    if (o->choices && !o->optional) {
        fprintf(out, " -f -a '");
        print_choices(out, o->choices);
        fputc('\'', out);
    } else if (o->complete == OPTION_COMPLETE_FILE) {
        fprintf(out, " -F");
    }
    fprintf(out, " -d '");
    print_quoted(out, o->help, "'\\");
    fprintf(out, "'\n");
}

void completion_fish(FILE *out) {
    fprintf(out, "# fish completion for cicada: cicada completion fish | source\n"
                 "function __cicada_vms; " VM_NAMES "; end\ncomplete -c cicada -f\n");
    for (unsigned i = 0; cli_commands[i]; i++) {
        const struct cli_command *c = cli_commands[i];
        fprintf(out, "complete -c cicada -n __fish_use_subcommand -a %s -d '", c->name);
        print_quoted(out, c->summary, "'\\");
        fprintf(out, "'\n");
        for (unsigned j = 0; j < c->options->count; j++)
            fish_option(out, c, &c->options->defs[j]);
        if (c->options->positional_complete == OPTION_COMPLETE_VM)
            fprintf(out, "complete -c cicada -n '__fish_seen_subcommand_from %s' -a '(__cicada_vms)'\n", c->name);
        if (!c->options->positional_choices)
            continue;
        fprintf(out, "complete -c cicada -n '__fish_seen_subcommand_from %s' -a '", c->name);
        print_choices(out, c->options->positional_choices);
        fprintf(out, "'\n");
    }
}
