/* lanline-harness: a node driven by lines of text, for tests and for trying things out. See harness.c. */
#ifndef LANLINE_EXAMPLE_HARNESS_H
#define LANLINE_EXAMPLE_HARNESS_H

#include <lanline.h>

#include "json.h"

/* Longest command line. A reliable message may be 1 MiB, but text that long is sent with `bytes=N` instead. */
#define HARNESS_MAX_LINE (256 * 1024)
/* Events fetched from the library by one call. */
#define HARNESS_BATCH 64
/* Events remembered for `wait`: this many messages and, apart from them, this many others. With more the oldest of
 * their kind are forgotten, so a flood of messages does not push out what happened in between. */
#define HARNESS_REMEMBERED 65536
/* Players whose figures `stats` sums up: the most that a node connects to. */
#define HARNESS_PEERS 1024
/* A message's text is cut at this many bytes on output. */
#define HARNESS_TEXT_LIMIT 256

struct remembered_event {
    uint32_t type;
    uint64_t peer;
};

/* Events that no `wait` has used up, oldest first: a ring. */
struct remembered_events {
    struct remembered_event *events;
    uint32_t first;
    uint32_t count;
};

struct harness {
    lanline_node node;
    lanline_guid guid;
    struct remembered_events messages;
    struct remembered_events others;
    /* Players who were connected; those who are gone are found out when their figures are asked for. */
    lanline_guid peers[HARNESS_PEERS];
    uint32_t peer_count;
    struct text line;
    int quit;
};

/* Milliseconds that never go backwards. */
uint64_t harness_now_ms(void);

/* Sleeps until there is an event, at most `timeout_ms`; also when the node is dead and the library answers at once. */
void harness_wait(struct harness *harness, uint32_t timeout_ms);
/* Prints every event that the library has. Gives how many there were. */
int harness_drain_events(struct harness *harness);
/* The same, waiting up to `timeout_ms` for the first. */
int harness_pump(struct harness *harness, uint32_t timeout_ms);
/* Uses up the first remembered event of that type (and peer, unless 0); others stay. 1 if there was one. */
int harness_take_event(struct harness *harness, uint32_t type, uint64_t peer);
/* Strikes players who are not connected any more. */
void harness_strike_peers(struct harness *harness);
void harness_forget_events(struct harness *harness);

/* Carries out one command line and prints its result. */
void harness_command(struct harness *harness, char *line, size_t len);
/* Prints a result that is an error, with a text that says what is wrong. */
void harness_refuse(struct harness *harness, const char *verb, int32_t code, const char *text);

/* `harness->line` as a line on standard output. */
void harness_print(struct harness *harness);

/* What events about NATs have beyond the fields that all have. */
void harness_nat_values(struct harness *harness, struct text *out, const lanline_event *event);
/* Writes `,"key":"address"`, or null for no address. */
void harness_address(struct text *text, const char *key, const lanline_address *address);
/* Unsigned decimal numbers up to `max`; 1 if it was one. */
int harness_number(const struct argument *argument, uint64_t max, uint64_t *out);
/* The names of relay policies, in the order of the header's numbers, and a NULL. */
extern const char *const harness_relay_policies[];
/* One of `names` (up to a NULL); its index, or -1. */
int harness_choice(const struct argument *argument, const char *const *names);

#endif
