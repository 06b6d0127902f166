// SPDX-License-Identifier: Apache-2.0
// Option parsing from a const table. Every message names the option and the value as given, and says what is
// allowed. Values from the command line may be of any length: they are cut in messages (%.*s), never copied
// into fixed buffers.
#include "vmm/option.h"

#include <errno.h>
#include <string.h>

#define WORD_MAX 32 // longer words are never near to anything we know

// Damerau-Levenshtein distance (optimal string alignment) of two words of at most WORD_MAX bytes.
static unsigned word_distance(const char *a, const char *b) {
    size_t na = strlen(a), nb = strlen(b);
    if (na > WORD_MAX || nb > WORD_MAX)
        return WORD_MAX + 1;
    unsigned char d[WORD_MAX + 1][WORD_MAX + 1];
    for (size_t i = 0; i <= na; i++)
        d[i][0] = (unsigned char)i;
    for (size_t j = 0; j <= nb; j++)
        d[0][j] = (unsigned char)j;
    for (size_t i = 1; i <= na; i++) {
        for (size_t j = 1; j <= nb; j++) {
            unsigned best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1u < best)
                best = d[i - 1][j] + 1u;
            if (d[i][j - 1] + 1u < best)
                best = d[i][j - 1] + 1u;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1u < best)
                best = d[i - 2][j - 2] + 1u;
            d[i][j] = (unsigned char)best;
        }
    }
    return d[na][nb];
}

const char *option_nearest(const char *word, const char *const *words) {
    const char *nearest = NULL;
    size_t len = strlen(word);
    unsigned best = len <= 3 ? 2 : 3; // at most one slip in a short word, two in a long one
    for (; *words; words++) {
        unsigned d = word_distance(word, *words);
        // A word cut short ("--mem") is meant to be the one that it starts.
        if (len >= 2 && strncmp(word, *words, len) == 0)
            d = 0;
        if (d < best) {
            best = d;
            nearest = *words;
        }
    }
    return nearest;
}

void option_choices_text(const char *choices, char *buf, size_t size) {
    size_t len = 0;
    for (const char *p = choices; *p && len + 1 < size; p++) {
        if (*p != '|') {
            buf[len++] = *p;
            continue;
        }
        const char *sep = strchr(p + 1, '|') ? ", " : " or ";
        for (; *sep && len + 1 < size; sep++)
            buf[len++] = *sep;
    }
    buf[len] = 0;
}

const struct option_def *option_find(const struct option_table *t, const char *name, size_t len) {
    for (unsigned i = 0; i < t->count; i++)
        if (strlen(t->defs[i].name) == len && memcmp(t->defs[i].name, name, len) == 0)
            return &t->defs[i];
    return NULL;
}

static const struct option_def *find_short(const struct option_table *t, char c) {
    for (unsigned i = 0; i < t->count; i++)
        if (t->defs[i].short_name == c)
            return &t->defs[i];
    return NULL;
}

static int unknown_option(const struct option_table *t, const char *arg, size_t len, struct error *err) {
    const char *names[64] = {"help"};
    unsigned n = 1;
    for (unsigned i = 0; i < t->count && n + 1 < sizeof(names) / sizeof(names[0]); i++)
        names[n++] = t->defs[i].name;
    char word[WORD_MAX + 1] = "";
    if (len > 2 && len - 2 <= WORD_MAX && arg[1] == '-')
        memcpy(word, arg + 2, len - 2);
    const char *near = word[0] ? option_nearest(word, names) : NULL;
    if (near)
        return error_set(err, -EINVAL, "unknown option '%.*s': did you mean --%s?", (int)len, arg, near);
    return error_set(err, -EINVAL, "unknown option '%.*s' (--help lists all)", len > 80 ? 80 : (int)len, arg);
}

// Place of value in "a|b|c", or -1.
static int choice_index(const char *choices, const char *value) {
    size_t n = strlen(value);
    int index = 0;
    for (const char *p = choices; p; index++) {
        const char *end = strchr(p, '|');
        size_t len = end ? (size_t)(end - p) : strlen(p);
        if (len == n && memcmp(p, value, n) == 0)
            return index;
        p = end ? end + 1 : NULL;
    }
    return -1;
}

static int apply(const struct option_def *o, const char *value, void *target, struct error *err) {
    int index = -1;
    if (o->choices && value) {
        index = choice_index(o->choices, value);
        if (index < 0) {
            char allowed[160];
            option_choices_text(o->choices, allowed, sizeof(allowed));
            return error_set(err, -EINVAL, "--%s: '%.80s' is not one of %s", o->name, value, allowed);
        }
    }
    return o->set(target, value, index, err);
}

// One option at argv[0], whose value may be argv[1]. Returns the number of arguments used up, or an error.
static int parse_one(const struct option_table *t, int argc, char *const *argv, void *target, struct error *err) {
    const char *arg = argv[0], *value = NULL;
    bool is_long = arg[1] == '-';
    size_t len = strlen(arg);
    const struct option_def *o;
    if (is_long) {
        const char *eq = strchr(arg, '=');
        if (eq) {
            len = (size_t)(eq - arg);
            value = eq + 1;
        }
        o = option_find(t, arg + 2, len - 2);
    } else {
        o = arg[2] ? NULL : find_short(t, arg[1]);
    }
    if (!o)
        return unknown_option(t, arg, len, err);
    if (!o->metavar && value)
        return error_set(err, -EINVAL, "--%s takes no value, but got '%.80s'", o->name, value);
    int used = 1;
    if (o->metavar && !value && !o->optional) {
        // "--kernel --initrd x": the value was forgotten, it is not the name of a file.
        bool forgotten = argc > 1 && strncmp(argv[1], "--", 2) == 0 && option_find(t, argv[1] + 2, strlen(argv[1] + 2));
        if (argc < 2 || forgotten)
            return error_set(err, -EINVAL, "--%s needs a value: --%s %s", o->name, o->name, o->metavar);
        value = argv[1];
        used = 2;
    }
    int ret = apply(o, value, target, err);
    return ret ? ret : used;
}

static bool is_help(const char *arg) {
    return strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0;
}

int option_parse(const struct option_table *t, int argc, char *const *argv, void *target, struct error *err) {
    bool options = true;
    for (int i = 0; i < argc;) {
        const char *arg = argv[i];
        if (options && strcmp(arg, "--") == 0) {
            options = false;
            i++;
        } else if (options && is_help(arg)) {
            return OPTION_HELP;
        } else if (options && arg[0] == '-' && arg[1]) {
            int used = parse_one(t, argc - i, argv + i, target, err);
            if (used < 0)
                return used;
            i += used;
        } else {
            if (!t->set_positional)
                return error_set(err, -EINVAL, "unexpected argument '%.80s': options start with --", arg);
            int ret = t->set_positional(target, arg, err);
            if (ret)
                return ret;
            i++;
        }
    }
    return 0;
}

static void print_one(const struct option_def *o, FILE *out) {
    char head[96], shorter[8] = "    ";
    if (o->short_name)
        snprintf(shorter, sizeof(shorter), "-%c, ", o->short_name);
    snprintf(head, sizeof(head), "  %s--%s%s%s%s", shorter, o->name,
             o->optional  ? "[="
             : o->metavar ? " "
                          : "",
             o->metavar ? o->metavar : "",
             o->optional ? "]"
             : o->repeat ? " ..."
                         : "");
    fprintf(out, strlen(head) < 30 ? "%-30s" : "%s\n                              ", head);
    // Help texts break at their own newlines.
    for (const char *p = o->help; *p;) {
        size_t n = strcspn(p, "\n");
        fprintf(out, "%.*s\n%s", (int)n, p, p[n] ? "                              " : "");
        p += n + (p[n] == '\n');
    }
}

void option_print_help(const struct option_table *t, FILE *out) {
    fprintf(out, "Options:\n");
    for (unsigned i = 0; i < t->count; i++)
        print_one(&t->defs[i], out);
    fprintf(out, "  -h, --help                  show this text\n");
}
