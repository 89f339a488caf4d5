/* The harness's verbs about relays: ways through other players and through proxy servers, and when they may be taken. */
#include "harness_call.h"

#include <string.h>

const char *const harness_relay_policies[] = {"fallback", "never", "only", NULL};

void verb_route(struct call *call)
{
    lanline_guid target = call_peer(call);

    if (call_ready(call))
        call_outcome(call, lanline_route(call->harness->node, target, &call->request));
}

void verb_proxy(struct call *call)
{
    lanline_guid target = call_peer(call);
    uint32_t idle_ms = (uint32_t)call_number(call, "idle_ms", 0, UINT32_MAX);

    if (call_ready(call))
        call_outcome(call, lanline_proxy(call->harness->node, target, idle_ms, &call->request));
}

/* `policy=`: the node's own; `session=`: the session's. Answers with the session's and the one that holds, as of now. */
void verb_relay_policy(struct call *call)
{
    struct argument *own = call_optional(call, "policy"), *session = call_optional(call, "session");
    int own_index = own ? harness_choice(own, harness_relay_policies) : 0;
    int session_index = session ? harness_choice(session, harness_relay_policies) : 0;
    uint32_t asked = 0, effective = 0;

    if (own_index < 0 || session_index < 0)
        call_refuse(call, LANLINE_INVALID_ARGUMENT, "fallback, never or only", own_index < 0 ? "policy" : "session");
    if (!call_ready(call))
        return;
    if (own)
        call_outcome(call, lanline_set_relay_policy(call->harness->node, (uint32_t)own_index));
    if (session && call->code >= 0)
        call_outcome(call, lanline_set_session_relay_policy(call->harness->node, (uint32_t)session_index));
    if (call->code < 0)
        return;
    call_outcome(call, lanline_relay_policy_get(call->harness->node, &asked, &effective));
    if (call->code < 0)
        return;
    json_key_string(&call->values, "session", harness_relay_policies[asked]);
    json_key_string(&call->values, "effective", harness_relay_policies[effective]);
}
