/* The harness's verbs. */
#include "harness_call.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How long `wait` waits if the command does not say. */
#define WAIT_DEFAULT_MS 10000
/* How long `send` goes on trying while queues are full. */
#define SEND_PATIENCE_MS 30000
/* A payload larger than any mode allows is still handed to the library, so that its error can be seen; this is the harness's own bound. */
#define SEND_MAX_BYTES (16 * 1024 * 1024)
/* Event numbers to look through for a name. */
#define EVENT_NUMBERS 1024

void call_refuse(struct call *call, int32_t code, const char *what, const char *key)
{
    if (call->code < 0)
        return;
    call->code = code;
    snprintf(call->error, sizeof call->error, "%s%s%s", key, *key ? ": " : "", what);
}

void call_outcome(struct call *call, int32_t code)
{
    call->code = code < 0 ? code : 0;
    if (code < 0) {
        call->error[0] = 0;
        lanline_last_error(call->error, sizeof call->error);
    }
}

struct argument *call_optional(struct call *call, const char *key)
{
    return command_argument(call->command, key);
}

uint64_t call_number(struct call *call, const char *key, uint64_t otherwise, uint64_t max)
{
    struct argument *argument = call_optional(call, key);
    uint64_t value = otherwise;

    if (argument && !harness_number(argument, max, &value))
        call_refuse(call, LANLINE_INVALID_ARGUMENT, "not a number, or out of range", key);
    return value;
}

uint64_t call_needed_number(struct call *call, const char *key, uint64_t max)
{
    if (!call_optional(call, key))
        call_refuse(call, LANLINE_INVALID_ARGUMENT, "missing", key);
    return call_number(call, key, 0, max);
}

lanline_guid call_peer(struct call *call)
{
    lanline_guid guid = call_needed_number(call, "peer", UINT64_MAX);

    if (!guid)
        call_refuse(call, LANLINE_INVALID_ARGUMENT, "0 is nobody", "peer");
    return guid;
}

struct argument call_text(struct call *call)
{
    static char nothing[1];
    struct argument *argument = call_optional(call, "text"), none;

    memset(&none, 0, sizeof none);
    none.value = nothing;
    return argument ? *argument : none;
}

int call_ready(struct call *call)
{
    int i;

    for (i = 0; i < call->command->count; i++)
        if (!call->command->arguments[i].used)
            call_refuse(call, LANLINE_INVALID_ARGUMENT, "this verb has no such argument", call->command->arguments[i].key);
    return call->code >= 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* A key of 32 bytes; 1 if it was one. */
static int hex_key(const struct argument *argument, uint8_t *out)
{
    int i, high, low;

    if (argument->len != 64)
        return 0;
    for (i = 0; i < 32; i++) {
        high = hex_digit(argument->value[2 * i]);
        low = hex_digit(argument->value[2 * i + 1]);
        if (high < 0 || low < 0)
            return 0;
        out[i] = (uint8_t)(high * 16 + low);
    }
    return 1;
}

static void verb_connect(struct call *call)
{
    struct argument *server = call_optional(call, "server"), *key = call_optional(call, "key");
    uint8_t bytes[32];

    if (!server)
        call_refuse(call, LANLINE_INVALID_ARGUMENT, "missing", "server");
    if (key && !hex_key(key, bytes))
        call_refuse(call, LANLINE_INVALID_ARGUMENT, "not 64 hexadecimal digits", "key");
    if (call_ready(call))
        call_outcome(call, lanline_server_connect(call->harness->node, server->value, (uint32_t)server->len,
                                             key ? bytes : NULL, &call->request));
}

static void verb_disconnect_server(struct call *call)
{
    if (call_ready(call))
        call_outcome(call, lanline_server_disconnect(call->harness->node, &call->request));
}

static void verb_open_nat(struct call *call)
{
    lanline_guid target = call_peer(call);

    if (call_ready(call))
        call_outcome(call, lanline_open_nat(call->harness->node, target, &call->request));
}

static void verb_connect_peer(struct call *call)
{
    struct argument *at = call_optional(call, "address");
    lanline_guid target = call_optional(call, "peer") ? call_peer(call) : 0;
    lanline_address address;

    if (at && lanline_address_parse(at->value, (uint32_t)at->len, &address) < 0)
        call_refuse(call, LANLINE_INVALID_ARGUMENT, "not of the form IP:PORT", "address");
    if (!at && !target)
        call_refuse(call, LANLINE_INVALID_ARGUMENT, "missing", "peer or address");
    if (call_ready(call))
        call_outcome(call, lanline_peer_connect(call->harness->node, target, at ? &address : NULL, &call->request));
}

static void verb_disconnect(struct call *call)
{
    lanline_guid target = call_peer(call);
    struct argument words = call_text(call);
    uint32_t user_code = (uint32_t)call_number(call, "user_code", 0, UINT32_MAX);

    if (call_ready(call))
        call_outcome(call, lanline_peer_disconnect(call->harness->node, target, user_code, words.value, (uint32_t)words.len));
}

/* Sends one message, trying again while queues are full. */
static int32_t send_patiently(struct call *call, lanline_guid target, uint8_t channel, uint8_t mode, const char *data,
                              uint32_t len, uint64_t deadline)
{
    int32_t code;

    for (;;) {
        code = lanline_send(call->harness->node, target, channel, mode, data, len);
        if (code != LANLINE_QUEUE_FULL || harness_now_ms() >= deadline)
            return code;
        harness_pump(call->harness, 1);
    }
}

/* `bytes=N count=N`: each message begins with its number, so that a reader can tell them apart. */
static int32_t send_filled(struct call *call, lanline_guid target, uint8_t channel, uint8_t mode, size_t bytes, uint64_t count)
{
    uint64_t deadline = harness_now_ms() + SEND_PATIENCE_MS, sent;
    char *data = (char *)malloc(bytes + 1);
    char prefix[24];
    int32_t code = 0;
    size_t i, len;

    if (!data)
        return LANLINE_OUT_OF_RESOURCES;
    for (i = 0; i < bytes; i++)
        data[i] = (char)('a' + i % 26);
    for (sent = 0; sent < count; sent++) {
        snprintf(prefix, sizeof prefix, "%08llu ", (unsigned long long)sent);
        len = strlen(prefix);
        memcpy(data, prefix, len < bytes ? len : bytes);
        code = send_patiently(call, target, channel, mode, data, (uint32_t)bytes, deadline);
        if (code < 0)
            break;
    }
    free(data);
    json_key_number(&call->values, "sent", (int64_t)sent);
    return code;
}

static void verb_send(struct call *call)
{
    static const char *const modes[] = {"unreliable", "unreliable_sequenced", "reliable", "reliable_ordered", NULL};
    struct argument *to = call_optional(call, "peer"), *mode = call_optional(call, "mode"), *words = call_optional(call, "text");
    int all = to && to->len == 3 && !memcmp(to->value, "all", 3);
    lanline_guid target = all ? LANLINE_ALL_PEERS : call_peer(call);
    uint8_t channel = (uint8_t)call_number(call, "channel", 0, 255);
    uint64_t bytes = words ? words->len : call_needed_number(call, "bytes", SEND_MAX_BYTES);
    uint64_t count = call_number(call, "count", 1, 100000000);
    int chosen = mode ? harness_choice(mode, modes) : LANLINE_SEND_RELIABLE_ORDERED;

    if (chosen < 0)
        call_refuse(call, LANLINE_INVALID_ARGUMENT, "unreliable, unreliable_sequenced, reliable or reliable_ordered", "mode");
    if (!call_ready(call))
        return;
    if (!words) {
        call_outcome(call, send_filled(call, target, channel, (uint8_t)chosen, (size_t)bytes, count));
        return;
    }
    call_outcome(call, send_patiently(call, target, channel, (uint8_t)chosen, words->value, (uint32_t)words->len,
                                 harness_now_ms() + SEND_PATIENCE_MS));
    json_key_number(&call->values, "sent", call->code < 0 ? 0 : 1);
}

static void verb_cancel(struct call *call)
{
    lanline_request request = (lanline_request)call_needed_number(call, "request", UINT32_MAX);

    if (call_ready(call))
        call_outcome(call, lanline_cancel(call->harness->node, request));
}

/* The number of an event by its name, 0 if there is none. */
static uint32_t event_number(const struct argument *argument)
{
    const char *name;
    uint32_t type;

    for (type = 1; type < EVENT_NUMBERS; type++) {
        name = lanline_event_name(type);
        if (strlen(name) == argument->len && !memcmp(name, argument->value, argument->len) && strcmp(name, "UNKNOWN"))
            return type;
    }
    return 0;
}

static void verb_wait(struct call *call)
{
    struct argument *event = call_optional(call, "event");
    lanline_guid from = call_optional(call, "peer") ? call_peer(call) : 0;
    uint64_t timeout = call_number(call, "timeout_ms", WAIT_DEFAULT_MS, 24 * 3600 * 1000), deadline, now;
    uint32_t type = event ? event_number(event) : 0;

    if (!event)
        call_refuse(call, LANLINE_INVALID_ARGUMENT, "missing", "event");
    else if (!type)
        call_refuse(call, LANLINE_INVALID_ARGUMENT, "this build has no event of that name", "event");
    if (!call_ready(call))
        return;
    deadline = harness_now_ms() + timeout;
    while (!harness_take_event(call->harness, type, from)) {
        now = harness_now_ms();
        if (now >= deadline) {
            call_refuse(call, LANLINE_TIMEOUT, "did not come in time", lanline_event_name(type));
            return;
        }
        harness_pump(call->harness, (uint32_t)(deadline - now));
    }
}

static void verb_sleep(struct call *call)
{
    uint64_t ms = call_needed_number(call, "ms", 24 * 3600 * 1000), deadline = harness_now_ms() + ms, now;

    if (!call_ready(call))
        return;
    while ((now = harness_now_ms()) < deadline)
        harness_pump(call->harness, (uint32_t)(deadline - now));
}

static void verb_quit(struct call *call)
{
    if (call_ready(call))
        call->harness->quit = 1;
}

struct verb {
    const char *name;
    void (*run)(struct call *call);
};

/* NULL: part of the protocol, but the library has no such call yet. */
static const struct verb verbs[] = {
    {"connect", verb_connect},
    {"disconnect_server", verb_disconnect_server},
    {"open_nat", verb_open_nat},
    {"connect_peer", verb_connect_peer},
    {"disconnect", verb_disconnect},
    {"send", verb_send},
    {"start_verified_join", verb_start_verified_join},
    {"join_list", verb_join_list},
    {"join_data", verb_join_data},
    {"respond_join", verb_respond_join},
    {"reset_host_calculation", verb_reset_host_calculation},
    {"host", verb_host},
    {"participants", verb_participants},
    {"leave", verb_leave},
    {"kick", verb_kick},
    {"detect_nat", verb_detect_nat},
    {"can_connect", verb_can_connect},
    {"open_upnp", verb_open_upnp},
    {"manual_port", verb_manual_port},
    {"report", verb_report},
    {"route", verb_route},
    {"proxy", verb_proxy},
    {"relay_policy", verb_relay_policy},
    {"stats", verb_stats},
    {"cancel", verb_cancel},
    {"wait", verb_wait},
    {"sleep", verb_sleep},
    {"quit", verb_quit},
    {"graph", NULL},
    {"ban", NULL},
    {"lock", NULL},
    {"hand_over", NULL},
    {"add_participant", NULL},
    {"room_post", NULL},
    {"room_list", NULL},
    {"room_delete", NULL},
    {"host_session", NULL},
    {"join_session", NULL},
    {"gate_register", NULL},
    {"gate_connect", NULL},
    {"gate_send", NULL},
    {"gate_lobby", NULL},
};

static void print_result(struct call *call, const char *verb)
{
    struct text *out = &call->harness->line;

    text_clear(out);
    text_add(out, "{\"result\":");
    json_string(out, verb, strlen(verb));
    json_key_number(out, "code", call->code);
    json_key_string(out, "name", lanline_result_name(call->code));
    json_key_number(out, "request", call->code < 0 ? 0 : call->request);
    if (call->code < 0)
        json_key_string(out, "text", call->error);
    if (call->values.len)
        text_bytes(out, call->values.data, call->values.len);
    text_add(out, "}");
    harness_print(call->harness);
    text_free(&call->values);
}

void harness_refuse(struct harness *harness, const char *verb, int32_t code, const char *text)
{
    struct call call;

    memset(&call, 0, sizeof call);
    call.harness = harness;
    call_refuse(&call, code, text, "");
    print_result(&call, verb);
}

void harness_command(struct harness *harness, char *line, size_t len)
{
    struct command command;
    struct call call;
    const char *wrong = command_parse(&command, line, len);
    size_t i;

    if (wrong) {
        harness_refuse(harness, command.verb, LANLINE_INVALID_ARGUMENT, wrong);
        return;
    }
    if (!*command.verb)
        return;
    memset(&call, 0, sizeof call);
    call.harness = harness;
    call.command = &command;
    for (i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (!strcmp(verbs[i].name, command.verb))
            break;
    if (i == sizeof verbs / sizeof verbs[0])
        call_refuse(&call, LANLINE_INVALID_ARGUMENT, "there is no such verb", command.verb);
    else if (!verbs[i].run)
        call_refuse(&call, LANLINE_UNSUPPORTED, "this version of the library has no such call yet", command.verb);
    else
        verbs[i].run(&call);
    print_result(&call, command.verb);
}
