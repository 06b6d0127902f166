// SPDX-License-Identifier: Apache-2.0
// `cicada migrate NAME --to ENDPOINT`: connects, hands the socket to the VM and watches until the guest runs elsewhere.
// Ctrl-C cancels: the guest then goes on here.
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/endpoint.h"
#include "cli/progress.h"
#include "cli/remote.h"
#include "cli/tls.h"
#include "vmm/config_value.h"
#include "vmm/run.h"

#define CONNECT_MS 10000
#define LOOK_NS    50000000l // between two looks at how far it is
#define EXIT_DOUBT 7

struct migrate_target {
    const char *name, *to;
    uint64_t downtime_ms, rounds, bandwidth; // 0: the VM's default
    bool force, no_throttle, copy_disks, cancel, json;
    const char *postcopy; // "later", "now", NULL
    struct tls_options tls;
};

// ---- options ----

static int set_to(void *t, const char *value, int index, struct error *err) {
    ((struct migrate_target *)t)->to = value;
    return 0;
}

static int set_number(const char *option, const char *value, uint64_t max, uint64_t *out, struct error *err) {
    if (value_parse_u64(value, out) == 0 && *out >= 1 && *out <= max)
        return 0;
    return error_set(err, -EINVAL, "--%s '%.40s': expected a number from 1 to %" PRIu64, option, value, max);
}

static int set_downtime(void *t, const char *value, int index, struct error *err) {
    return set_number("downtime", value, 3600000, &((struct migrate_target *)t)->downtime_ms, err);
}

static int set_rounds(void *t, const char *value, int index, struct error *err) {
    return set_number("rounds", value, 10000, &((struct migrate_target *)t)->rounds, err);
}

static int set_bandwidth(void *t, const char *value, int index, struct error *err) {
    uint64_t *bytes = &((struct migrate_target *)t)->bandwidth;
    if (value_parse_size(value, bytes) == 0 && *bytes >= 65536 && *bytes <= INT64_MAX)
        return 0;
    return error_set(err, -EINVAL, "--bandwidth '%.40s': expected bytes per second, at least 64K, e.g. 100M", value);
}

static int set_force(void *t, const char *value, int index, struct error *err) {
    ((struct migrate_target *)t)->force = true;
    return 0;
}

static int set_no_throttle(void *t, const char *value, int index, struct error *err) {
    ((struct migrate_target *)t)->no_throttle = true;
    return 0;
}

static int set_copy_disks(void *t, const char *value, int index, struct error *err) {
    ((struct migrate_target *)t)->copy_disks = true;
    return 0;
}

static int set_postcopy(void *t, const char *value, int index, struct error *err) {
    ((struct migrate_target *)t)->postcopy = value ? value : "later";
    return 0;
}

static int set_cancel(void *t, const char *value, int index, struct error *err) {
    ((struct migrate_target *)t)->cancel = true;
    return 0;
}

static int set_json(void *t, const char *value, int index, struct error *err) {
    ((struct migrate_target *)t)->json = true;
    return 0;
}

static int set_tls(void *t, const char *value, int index, struct error *err) {
    ((struct migrate_target *)t)->tls.dir = value;
    return 0;
}

static int set_tls_name(void *t, const char *value, int index, struct error *err) {
    ((struct migrate_target *)t)->tls.name = value;
    return 0;
}

static int set_name(void *t, const char *value, struct error *err) {
    return remote_set_name(&((struct migrate_target *)t)->name, value, err);
}

static const struct option_def defs[] = {
    {"to", .metavar = "tcp:HOST:PORT|unix:PATH", .set = set_to, .help = "where 'cicada receive' waits (needed)"},
    {"downtime", .metavar = "MS", .set = set_downtime,
     .help = "the guest may stand for so many milliseconds\n(default 50)"},
    {"bandwidth", .metavar = "SIZE", .set = set_bandwidth, .help = "send at most so many bytes a second"},
    {"rounds", .metavar = "N", .set = set_rounds, .help = "passes over what the guest has written (default 30)"},
    {"force", .set = set_force,
     .help = "then stop the guest however much is left; without it\nthe migration is given up"},
    {"no-throttle", .set = set_no_throttle, .help = "never slow the guest down"},
    {"copy-disks", .set = set_copy_disks, .help = "copy the disks, too: into new files of the target"},
    {"postcopy", .metavar = "now", .optional = true, .choices = "now", .set = set_postcopy,
     .help =
         "the guest moves after one pass, or now, and gets the rest\nof its memory as it asks for it; lost where the\n"
         "connection then breaks"},
    {"tls", .metavar = "DIRECTORY", .complete = OPTION_COMPLETE_FILE, .set = set_tls,
     .help = "encrypt, and prove to each other who you are:\nca-cert.pem, client-cert.pem and client-key.pem"},
    {"tls-name", .metavar = "NAME", .set = set_tls_name,
     .help = "name in the certificate of the target (default HOST)"},
    {"cancel", .set = set_cancel, .help = "end a migration under way: the guest goes on here"},
    {"json", .set = set_json, .help = "print the figures as JSON"},
};
static const struct option_table options = {.defs = defs,
                                            .count = sizeof(defs) / sizeof(defs[0]),
                                            .positional = "NAME",
                                            .positional_complete = OPTION_COMPLETE_VM,
                                            .set_positional = set_name};

// ---- the request ----

static json_t *make_request(const struct migrate_target *t, bool same_host) {
    json_t *r = json_pack("{s:s, s:b, s:b, s:b, s:b}", "action", "migrate", "force", t->force, "throttle",
                          !t->no_throttle, "same_host", same_host, "copy_disks", t->copy_disks);
    if (t->downtime_ms)
        json_object_set_new(r, "downtime_ms", json_integer((json_int_t)t->downtime_ms));
    if (t->rounds)
        json_object_set_new(r, "rounds", json_integer((json_int_t)t->rounds));
    if (t->postcopy)
        json_object_set_new(r, "postcopy", json_string(t->postcopy));
    if (t->bandwidth)
        json_object_set_new(r, "bandwidth", json_integer((json_int_t)t->bandwidth));
    return r;
}

static int call(struct control_client *c, const char *action, json_t **result, struct error *err) {
    json_t *request = json_pack("{s:s}", "action", action);
    int ret = control_client_call(c, request, REMOTE_TIMEOUT_MS, result, err);
    json_decref(request);
    return ret;
}

static int begin(const struct migrate_target *t, struct control_client *c, struct error *err) {
    struct endpoint to;
    json_t *result = NULL;
    int ret = endpoint_parse(t->to, &to, err);
    if (ret)
        return error_prefix(err, "--to");
    int fd = endpoint_connect(&to, CONNECT_MS, err);
    if (fd >= 0)
        fd = tls_wrap(&t->tls, false, to.host, fd, err);
    if (fd < 0)
        return fd;
    json_t *request = make_request(t, to.is_unix);
    ret = control_client_call_fds(c, request, &fd, 1, REMOTE_TIMEOUT_MS, &result, err);
    json_decref(request);
    json_decref(result);
    close(fd);
    return ret;
}

// ---- watching ----

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig) {
    interrupted = 1;
}

static void watch_interrupt(void) {
    struct sigaction act = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
}

static uint64_t number(const json_t *status, const char *key) {
    json_int_t v = json_integer_value(json_object_get(status, key));
    return v > 0 ? (uint64_t)v : 0;
}

static const char *text(const json_t *status, const char *key) {
    const char *s = json_string_value(json_object_get(status, key));
    return s ? s : "";
}

static void show(struct progress *p, const json_t *s) {
    uint64_t total = number(s, "total_bytes"), left = number(s, "left_bytes"), round = number(s, "round");
    char slowed[48] = "";
    if (number(s, "throttle"))
        snprintf(slowed, sizeof(slowed), ", guest slowed by %" PRIu64 "%%", number(s, "throttle"));
    progress_show(p, round ? total - left : 0, total,
                  "%s, round %" PRIu64 ", %" PRIu64 " MiB left, %" PRIu64 " MiB/s%s", text(s, "stage"), round,
                  left >> 20, number(s, "rate") >> 20, slowed);
}

static bool over(const char *stage) {
    return strcmp(stage, "moved") == 0 || strcmp(stage, "lost") == 0 || strcmp(stage, "failed") == 0 ||
           strcmp(stage, "in doubt") == 0;
}

// Until it is over. *status: the last one, a new reference.
static int watch(struct control_client *c, json_t **status, struct error *err) {
    struct progress p;
    json_t *ignored = NULL;
    struct error refused;
    int ret;
    watch_interrupt();
    progress_begin(&p);
    for (;;) {
        json_decref(*status);
        *status = NULL;
        ret = call(c, "migrate-status", status, err);
        if (ret || over(text(*status, "stage")))
            break;
        show(&p, *status);
        if (interrupted == 1 && call(c, "migrate-cancel", &ignored, &refused) == 0)
            interrupted = 2;
        nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
    }
    progress_end(&p);
    return ret;
}

static void print_result(const struct migrate_target *t, const json_t *s) {
    if (t->json) {
        json_dumpf(s, stdout, JSON_INDENT(2));
        putchar('\n');
        return;
    }
    printf("%s runs at %s: %" PRIu64 " MiB in %" PRIu64 ".%" PRIu64 " s, %" PRIu64 " rounds, stood for %" PRIu64
           ".%" PRIu64 " ms\n",
           t->name, t->to, number(s, "sent_bytes") >> 20, number(s, "time_ms") / 1000, number(s, "time_ms") / 100 % 10,
           number(s, "round"), number(s, "downtime_us") / 1000, number(s, "downtime_us") / 100 % 10);
}

static int conclude(const struct migrate_target *t, const json_t *s) {
    const char *stage = text(s, "stage");
    if (strcmp(stage, "moved") == 0) {
        print_result(t, s);
        return cli_finish_output();
    }
    if (strcmp(stage, "failed") == 0) {
        fprintf(stderr, "cicada: migrate %s: %s; it goes on here\n", t->name, text(s, "error"));
        return interrupted ? 130 : run_error_code((int)json_integer_value(json_object_get(s, "code")));
    }
    if (strcmp(stage, "lost") == 0) {
        fprintf(stderr,
                "cicada: migrate %s: %s during post-copy: the guest is lost, unless the target says that all of its "
                "memory is there\n",
                t->name, text(s, "error"));
        return RUN_HOST;
    }
    fprintf(
        stderr,
        "cicada: migrate %s: %s while it was handed over: it may run at the target, and stands here.\n"
        "cicada: look there: if it runs, 'cicada stop %s' here; if not, stop it there and 'cicada resume %s' here\n",
        t->name, text(s, "error"), t->name, t->name);
    if (t->postcopy)
        fprintf(stderr,
                "cicada: with post-copy, resume it only where the target says that the guest has not run there\n");
    return EXIT_DOUBT;
}

static int migrate(const struct migrate_target *t, struct control_client *c, json_t **status, struct error *err) {
    int ret = t->cancel ? call(c, "migrate-cancel", status, err) : begin(t, c, err);
    return ret || t->cancel ? ret : watch(c, status, err);
}

static int run(const struct cli_command *cmd, int argc, char *const *argv) {
    struct migrate_target t = {0};
    struct instance inst;
    struct control_client c = {.fd = -1};
    struct error err = {0};
    json_t *status = NULL;
    pid_t pid;
    int code = cli_parse(cmd, argc, argv, &t);
    if (code != CLI_GO_ON)
        return code;
    int ret = remote_open(t.name, &inst, &pid, &c, &err);
    if (ret == 0 && !t.to == !t.cancel)
        ret = error_set(&err, -EINVAL, t.to ? "--to and --cancel exclude each other" : "--to is needed");
    if (ret == 0)
        ret = migrate(&t, &c, &status, &err);
    code = ret ? cli_fail(&err, run_error_code(ret)) : t.cancel ? 0 : conclude(&t, status);
    json_decref(status);
    control_client_close(&c);
    return code;
}

const struct cli_command cmd_migrate = {
    .name = "migrate",
    .summary = "Move a running virtual machine to another process or host",
    .usage = "NAME --to tcp:HOST:PORT|unix:PATH [OPTION]...",
    .options = &options,
    .run = run,
};
