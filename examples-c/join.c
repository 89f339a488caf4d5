/* join SERVER:PORT NAME ID: joins the session of the host with that id, and chats.
 *
 * When the host disappears, the player who has been in the session longest is the next one; that may be this program, so it
 * also does what host.c does: it invites those who connect to it.
 */
#include <lanline.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static lanline_node node;
static lanline_guid my_id, host_id;
static const char *my_name;
static int running = 1, in_session;

/* Every call that can fail says why. */
static void check(int32_t result, const char *what)
{
    char why[256] = "";

    if (result >= 0)
        return;
    lanline_last_error(why, sizeof why);
    fprintf(stderr, "%s: %s: %s\n", what, lanline_result_name(result), why);
    exit(1);
}

/* Events that have no text have NULL. */
static const char *text_of(const lanline_event *event)
{
    return event->text_len ? (const char *)event->text : "";
}

static void say_to_all(const char *words)
{
    char line[300];

    snprintf(line, sizeof line, "%s: %s", my_name, words);
    lanline_send(node, LANLINE_ALL_PEERS, 0, LANLINE_SEND_RELIABLE_ORDERED, line, (uint32_t)strlen(line));
}

static void give_up(const char *what, const lanline_event *event)
{
    printf("%s: %s: %s\n", what, lanline_result_name(event->code), text_of(event));
    running = 0;
}

static void handle(const lanline_event *event)
{
    unsigned long long peer = (unsigned long long)event->peer;
    lanline_request request;

    switch (event->type) {
    case LANLINE_EVENT_SERVER_CONNECTED:
        /* Opens a way through both routers, then connects. */
        check(lanline_peer_connect(node, host_id, NULL, &request), "connect to the host");
        break;
    case LANLINE_EVENT_SERVER_FAILED:
        give_up("no server", event);
        break;
    case LANLINE_EVENT_CONNECTED:
        printf("connected to %llu (%s)\n", peer, lanline_path_name(event->path));
        /* To the first one this is the host, which starts the join; the library itself connects to the other members. */
        if (in_session && host_id == my_id)
            check(lanline_join_start(node, event->peer, my_name, (uint32_t)strlen(my_name), &request), "invite");
        break;
    case LANLINE_EVENT_CONNECTION_FAILED:
        give_up("no connection", event);
        break;
    case LANLINE_EVENT_VERIFIED_JOIN_START:
        /* Beside the host, who is not counted. */
        printf("joining: %u other players to reach\n", (unsigned)event->count);
        break;
    case LANLINE_EVENT_VERIFIED_JOIN_ACCEPTED:
        printf("in: %.*s\n", (int)event->data_len, (const char *)event->data);
        in_session = 1;
        say_to_all("hello");
        break;
    case LANLINE_EVENT_VERIFIED_JOIN_REJECTED:
        give_up("turned down", event);
        break;
    case LANLINE_EVENT_VERIFIED_JOIN_FAILED:
        if (!in_session)
            give_up("could not join", event);
        break;
    case LANLINE_EVENT_VERIFIED_JOIN_CAPABLE:
        check(lanline_join_respond(node, event->peer, 1, "welcome", 7), "accept");
        break;
    case LANLINE_EVENT_MEMBER_JOINED:
        printf("%llu is in the session\n", peer);
        break;
    case LANLINE_EVENT_MEMBER_LEFT:
        printf("%llu left the session (%s)\n", peer, lanline_result_name(event->code));
        break;
    case LANLINE_EVENT_NEW_HOST:
        host_id = event->peer;
        printf("%llu is the host now%s\n", peer, host_id == my_id ? " (me)" : "");
        break;
    case LANLINE_EVENT_PATH_CHANGED:
        /* A connection that began over a relay is direct now, or the other way round. Nothing to do: nothing is lost. */
        printf("%llu: the path is %s now\n", peer, lanline_path_name(event->path));
        break;
    case LANLINE_EVENT_MESSAGE:
        printf("%.*s\n", (int)event->data_len, (const char *)event->data);
        break;
    case LANLINE_EVENT_FATAL:
        give_up("the library failed", event);
        break;
    default:
        break; /* Events that this program does not need, also those of later versions. */
    }
}

int main(int argc, char **argv)
{
    lanline_node_options options;
    lanline_request request;
    lanline_event events[32];
    time_t last_words = time(NULL);
    int32_t count, i;

    if (argc != 4) {
        fprintf(stderr, "usage: join SERVER:PORT NAME ID\n");
        return 2;
    }
    my_name = argv[2];
    host_id = strtoull(argv[3], NULL, 10);
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);

    lanline_node_options_init(&options);
    options.app = "lanline-example";
    options.app_len = (uint32_t)strlen(options.app);
    check(lanline_node_create(&options, &node), "create");
    check(lanline_node_guid(node, &my_id), "guid");
    check(lanline_server_connect(node, argv[1], (uint32_t)strlen(argv[1]), NULL, &request), "connect");

    while (running) {
        lanline_wait(node, 16); /* A game renders its frame here instead. */
        while ((count = lanline_poll(node, events, (uint32_t)sizeof events[0], 32)) > 0)
            for (i = 0; i < count; i++)
                handle(&events[i]);
        if (in_session && time(NULL) - last_words >= 2) {
            say_to_all("still here");
            last_words = time(NULL);
        }
    }
    lanline_node_destroy(node, 1000);
    return 1;
}
