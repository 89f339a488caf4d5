/* The harness's verbs and events about NATs, ports at routers, and the report. */
#include "harness_call.h"

#include <string.h>

/* Longest text that lanline_nat_text and lanline_port_manual write (they say so). */
#define WORDS_MAX 512
/* Kinds of NAT: numbers 0 to 5 of the header. */
#define NAT_TYPES 6

/* `HOST:PORT`, `HOST`, `[IPV6]:PORT`, `[IPV6]`: an IPv6 address without brackets is all host. */
static void stun_server(struct call *call, const struct argument *stun, lanline_nat_detect_options *options)
{
    const char *end = stun->value + stun->len, *colon = NULL, *close = NULL, *at;
    struct argument number;
    uint64_t port = 0;
    int colons = 0;

    for (at = stun->value; at < end; at++) {
        if (*at == ':') {
            colon = at;
            colons++;
        } else if (*at == ']') {
            close = at;
        }
    }
    options->stun_host = stun->value;
    options->stun_host_len = (uint32_t)stun->len;
    if (stun->len && stun->value[0] == '[' && close) {
        options->stun_host = stun->value + 1;
        options->stun_host_len = (uint32_t)(close - stun->value - 1);
        if (colon && colon < close)
            colon = NULL;
    } else if (colons != 1) {
        colon = NULL;
    } else {
        options->stun_host_len = (uint32_t)(colon - stun->value);
    }
    if (!colon)
        return;
    memset(&number, 0, sizeof number);
    number.value = stun->value + (colon + 1 - stun->value);
    number.len = (size_t)(end - colon - 1);
    if (!harness_number(&number, 65535, &port) || !port)
        call_refuse(call, LANLINE_INVALID_ARGUMENT, "not of the form HOST:PORT", "stun");
    options->stun_port = (uint16_t)port;
}

/* `[stun=HOST:PORT] [lifetime_ms=N]` */
static void detect_arguments(struct call *call, lanline_nat_detect_options *options)
{
    struct argument *stun = call_optional(call, "stun");

    lanline_nat_detect_options_init(options);
    options->lifetime_up_to_ms = (uint32_t)call_number(call, "lifetime_ms", 0, UINT32_MAX);
    if (stun)
        stun_server(call, stun, options);
}

void verb_detect_nat(struct call *call)
{
    lanline_nat_detect_options options;

    detect_arguments(call, &options);
    if (call_ready(call))
        call_outcome(call, lanline_nat_detect(call->harness->node, &options, &call->request));
}

static uint32_t nat_type(struct call *call, const char *key)
{
    struct argument *argument = call_optional(call, key);
    const char *name;
    uint32_t type;

    if (!argument) {
        call_refuse(call, LANLINE_INVALID_ARGUMENT, "missing", key);
        return 0;
    }
    for (type = 0; type < NAT_TYPES; type++) {
        name = lanline_nat_type_name(type);
        if (strlen(name) == argument->len && !memcmp(name, argument->value, argument->len))
            return type;
    }
    call_refuse(call, LANLINE_INVALID_ARGUMENT,
                "NONE, FULL_CONE, ADDRESS_RESTRICTED, PORT_RESTRICTED, SYMMETRIC or UNKNOWN", key);
    return 0;
}

void verb_can_connect(struct call *call)
{
    uint32_t a = nat_type(call, "a"), b = nat_type(call, "b");
    uint8_t lanline = 0, raknet = 0;

    if (!call_ready(call))
        return;
    call_outcome(call, lanline_nat_can_connect(a, b, &lanline, &raknet));
    if (call->code < 0)
        return;
    json_key_string(&call->values, "lanline", lanline_connectivity_name(lanline));
    json_key_number(&call->values, "raknet", raknet);
}

void verb_open_upnp(struct call *call)
{
    uint32_t timeout = (uint32_t)call_number(call, "timeout_ms", 2000, UINT32_MAX);

    if (call_ready(call))
        call_outcome(call, lanline_port_map(call->harness->node, timeout, &call->request));
}

void verb_manual_port(struct call *call)
{
    lanline_manual_port port;
    char words[WORDS_MAX];

    if (!call_ready(call))
        return;
    lanline_manual_port_init(&port);
    call_outcome(call, lanline_port_manual(call->harness->node, &port, words, sizeof words));
    if (call->code < 0)
        return;
    json_key_number(&call->values, "port", port.port);
    json_key_string(&call->values, "protocol", "UDP");
    harness_address(&call->values, "internal", &port.internal);
    json_key_string(&call->values, "text", words);
    json_key_number(&call->values, "lasting", port.lasting);
}

/* `[map=0|1] [stun=HOST:PORT] [lifetime_ms=N]`: ends in REPORT. */
void verb_report(struct call *call)
{
    lanline_nat_detect_options options;
    uint32_t flags = call_number(call, "map", 1, 1) ? LANLINE_REPORT_MAP_PORT : 0;

    detect_arguments(call, &options);
    if (call_ready(call))
        call_outcome(call, lanline_report(call->harness->node, flags, &options, &call->request));
}

static void nat_words(struct harness *harness, struct text *out, const char *key, uint32_t which)
{
    char words[WORDS_MAX];

    words[0] = 0;
    lanline_nat_text(harness->node, which, words, sizeof words);
    json_key_string(out, key, words);
}

void harness_nat_values(struct harness *harness, struct text *out, const lanline_event *event)
{
    switch (event->type) {
    case LANLINE_EVENT_NAT_TYPE:
        json_key_string(out, "type", lanline_nat_type_name(event->count));
        json_key_number(out, "certain", event->flags & LANLINE_FLAG_CERTAIN ? 1 : 0);
        json_key_number(out, "friendly", event->flags & LANLINE_FLAG_FRIENDLY ? 1 : 0);
        nat_words(harness, out, "mapping", LANLINE_NAT_TEXT_MAPPING);
        nat_words(harness, out, "filtering", LANLINE_NAT_TEXT_FILTERING);
        nat_words(harness, out, "ports", LANLINE_NAT_TEXT_PORTS);
        harness_address(out, "public", &event->address);
        break;
    case LANLINE_EVENT_PORT_MAPPED:
        harness_address(out, "external", &event->address);
        json_key_string(out, "protocol", lanline_mapping_name(event->count));
        json_key_number(out, "double_nat", event->flags & LANLINE_FLAG_DOUBLE_NAT ? 1 : 0);
        break;
    case LANLINE_EVENT_REPORT:
        json_key(out, "report");
        if (event->data_len)
            text_bytes(out, (const char *)event->data, event->data_len);
        else
            text_add(out, "null");
        break;
    default:
        break;
    }
}
