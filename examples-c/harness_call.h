/* A harness command being carried out; shared by the files that hold the verbs. */
#ifndef LANLINE_EXAMPLE_HARNESS_CALL_H
#define LANLINE_EXAMPLE_HARNESS_CALL_H

#include "harness.h"

/* A command being carried out: what it asks, and the result as it grows. */
struct call {
    struct harness *harness;
    struct command *command;
    lanline_request request;
    int32_t code;
    char error[512];
    struct text values;
};

/* Ends the call with an error; the first one counts. `key` names the argument, or is empty. */
void call_refuse(struct call *call, int32_t code, const char *what, const char *key);
/* Takes over a result of the library. */
void call_outcome(struct call *call, int32_t code);
/* The argument, or NULL. */
struct argument *call_optional(struct call *call, const char *key);
/* A number, or `otherwise` if it is not there. */
uint64_t call_number(struct call *call, const char *key, uint64_t otherwise, uint64_t max);
uint64_t call_needed_number(struct call *call, const char *key, uint64_t max);
/* `peer=GUID`. */
lanline_guid call_peer(struct call *call);
/* `text=…`, or nothing. */
struct argument call_text(struct call *call);
/* True if the arguments were all understood: only then is anything done. */
int call_ready(struct call *call);

/* Verbs of the session and of figures (harness_session.c). */
void verb_start_verified_join(struct call *call);
void verb_join_list(struct call *call);
void verb_join_data(struct call *call);
void verb_respond_join(struct call *call);
void verb_reset_host_calculation(struct call *call);
void verb_host(struct call *call);
void verb_participants(struct call *call);
void verb_leave(struct call *call);
void verb_kick(struct call *call);
void verb_stats(struct call *call);

/* Verbs about NATs (harness_nat.c). */
void verb_detect_nat(struct call *call);
void verb_can_connect(struct call *call);
void verb_open_upnp(struct call *call);
void verb_manual_port(struct call *call);
void verb_report(struct call *call);

/* Verbs about relays (harness_relay.c). */
void verb_route(struct call *call);
void verb_proxy(struct call *call);
void verb_relay_policy(struct call *call);

#endif
