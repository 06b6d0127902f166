// SPDX-License-Identifier: Apache-2.0
// `cicada receive ENDPOINT`: waits for a migration; the process then is the virtual machine. What the guest sees comes
// with it; what is of this host (name, consoles, engine, places of files) may be told anew by the options of `run`.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/endpoint.h"
#include "cli/terminal.h"
#include "cli/tls.h"
#include "state/migrate/target.h"
#include "vmm/config.h"
#include "vmm/migrate_manifest.h"
#include "vmm/run.h"

// The configuration first, so that the options of `run` find theirs.
struct receive_target {
    struct vm_config cfg;
    const char *at;
    struct tls_options tls;
};

// ---- options ----

static const char *const of_run[] = {"name",   "serial", "console", "engine",     "disk",     "net",        "kernel",
                                     "initrd", "log",    "verbose", "xlate-opts", "kvm-opts", "code-cache", "gdb"};
#define OF_RUN (sizeof(of_run) / sizeof(of_run[0]))

static int set_at(void *t, const char *value, struct error *err) {
    struct receive_target *r = t;
    if (r->at)
        return error_set(err, -EINVAL, "unexpected argument '%.80s': one ENDPOINT is enough", value);
    r->at = value;
    return 0;
}

static int set_tls(void *t, const char *value, int index, struct error *err) {
    ((struct receive_target *)t)->tls.dir = value;
    return 0;
}

static int set_tls_name(void *t, const char *value, int index, struct error *err) {
    ((struct receive_target *)t)->tls.name = value;
    return 0;
}

static const struct option_def own_defs[] = {
    {"tls", .metavar = "DIRECTORY", .complete = OPTION_COMPLETE_FILE, .set = set_tls,
     .help = "encrypt, and prove to each other who you are:\nca-cert.pem, server-cert.pem and server-key.pem"},
    {"tls-name", .metavar = "NAME", .set = set_tls_name,
     .help = "name that the source's certificate must have (default:\nany that the CA has signed)"},
};
#define OWN (sizeof(own_defs) / sizeof(own_defs[0]))

static struct option_def defs[OWN + OF_RUN];
static struct option_table options = {.defs = defs, .positional = "ENDPOINT", .set_positional = set_at};

static void __attribute__((constructor)) options_fill(void) {
    for (; options.count < OWN; options.count++)
        defs[options.count] = own_defs[options.count];
    for (unsigned i = 0; i < OF_RUN; i++) {
        const struct option_def *d = option_find(&config_options, of_run[i], strlen(of_run[i]));
        if (d)
            defs[options.count++] = *d;
    }
}

// ---- the configuration ----

// The source's, and over it what was asked for here: a list given here takes the place of the source's.
static int merge(const json_t *manifest, int argc, char *const *argv, const struct vm_config *asked,
                 struct vm_config *cfg, struct error *err) {
    struct receive_target again = {.at = NULL};
    json_t *own = json_deep_copy(manifest), *opts = json_object_get(own, "options");
    if (asked->ndisks)
        json_object_del(opts, "disk");
    if (asked->nnets)
        json_object_del(opts, "net");
    config_init(&again.cfg);
    int ret = migrate_manifest_config(own, &again.cfg, err);
    if (ret == 0)
        ret = option_parse(&options, argc - 1, argv + 1, &again, err);
    *cfg = again.cfg;
    json_decref(own);
    return ret;
}

// ---- disks that are copied ----

// A new file of that size. One that is there already may be somebody's disk, the source's own even.
static int make_disk(const char *path, json_int_t size, struct error *err) {
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST)
        return error_set(err, -EINVAL, "disk '%s' exists: a copy needs a new file (--disk names another)", path);
    if (fd < 0)
        return error_set(err, -errno, "create disk '%s'", path);
    int ret = ftruncate(fd, (off_t)size) == 0 ? 0 : error_set(err, -errno, "create disk '%s'", path);
    close(fd);
    return ret;
}

static int make_disks(const json_t *manifest, struct vm_config *cfg, struct error *err) {
    const json_t *sizes = migrate_manifest_copied(manifest);
    int ret = 0;
    if (sizes && json_array_size(sizes) != cfg->ndisks)
        return error_set(err, -EINVAL, "the source has %zu disks, --disk names %u", json_array_size(sizes),
                         cfg->ndisks);
    for (unsigned i = 0; sizes && ret == 0 && i < cfg->ndisks; i++) {
        json_int_t size = json_integer_value(json_array_get(sizes, i));
        if (size < 0 || (size == 0) != cfg->disks[i].read_only)
            ret = error_set(err, -EINVAL, "disk '%s' can be written to on one side only", cfg->disks[i].path);
        else if (size)
            ret = make_disk(cfg->disks[i].path, size, err);
    }
    cfg->incoming_disks = sizes;
    return ret;
}

// ---- waiting ----

// Strangers are hung up on. Until a source is there, its first message in *manifest (a string to free).
static int wait_for_source(const struct endpoint *e, const struct tls_options *tls, struct wire *w, char **manifest,
                           struct error *err) {
    char name[512];
    int listener = endpoint_listen(e, err), ret;
    if (listener < 0)
        return listener;
    endpoint_name(e, listener, name, sizeof(name));
    fprintf(stderr, "cicada: waiting at %s\n", name);
    for (;;) {
        struct error why = {0};
        ret = endpoint_accept(e, listener, err);
        if (ret < 0)
            break;
        ret = tls_wrap(tls, true, "", ret, &why);
        if (ret >= 0 && (ret = target_greet(ret, w, manifest, &why)) == 0)
            break;
        fprintf(stderr, "cicada: a connection is no migration: %s\n", why.text);
        target_refuse(w, why.text);
    }
    endpoint_close(e, listener);
    return ret;
}

static int receive(struct receive_target *t, int argc, char *const *argv, struct error *err) {
    struct wire wire = {.fd = -1};
    struct endpoint e;
    struct vm_config cfg;
    struct cpuid_policy cpu;
    char *text = NULL;
    config_init(&cfg);
    int code = RUN_CALLER, ret = t->at ? endpoint_parse(t->at, &e, err)
                                       : error_set(err, -EINVAL, "an ENDPOINT is needed: tcp:HOST:PORT or unix:PATH");
    if (ret == 0 && (ret = wait_for_source(&e, &t->tls, &wire, &text, err)))
        code = run_error_code(ret);
    json_t *manifest = ret ? NULL : migrate_manifest_parse(text, err);
    if (manifest && merge(manifest, argc, argv, &t->cfg, &cfg, err) == 0 &&
        migrate_manifest_cpuid(manifest, &cpu, err) == 0 && make_disks(manifest, &cfg, err) == 0) {
        cfg.like = &cpu;
        struct run_terminal term = {.enter = terminal_enter, .leave = terminal_leave, .resumed = terminal_resumed};
        struct run_incoming in = {.wire = &wire, .manifest = manifest};
        terminal_examine(&term.interactive, &term.input);
        code = run_vm_incoming(&cfg, &term, &in, err);
    }
    target_refuse(&wire, err->text); // closed by now, unless the manifest would not do
    json_decref(manifest);
    config_destroy(&cfg);
    free(text);
    return code;
}

static int run(const struct cli_command *cmd, int argc, char *const *argv) {
    struct receive_target t = {.at = NULL};
    struct error err = {0};
    config_init(&t.cfg);
    int code = cli_parse(cmd, argc, argv, &t);
    if (code == CLI_GO_ON) {
        code = receive(&t, argc, argv, &err);
        if (err.code)
            cli_fail(&err, code);
    }
    config_destroy(&t.cfg);
    return code;
}

const struct cli_command cmd_receive = {
    .name = "receive",
    .summary = "Wait for a migration and run the virtual machine that comes",
    .usage = "tcp:HOST:PORT|unix:PATH [OPTION]...",
    .options = &options,
    .run = run,
};
