/* host SERVER:PORT NAME: opens a session that others join with `join SERVER:PORT NAME ID`.
 *
 * The shape of a game's network code: create a node, connect it to a server, and look at its events once a frame.
 */
#include <lanline.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static lanline_node node;
static lanline_guid my_id;
static const char *my_name;
static int running = 1;

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
    /* Nobody is there yet: no reason to stop. */
    lanline_send(node, LANLINE_ALL_PEERS, 0, LANLINE_SEND_RELIABLE_ORDERED, line, (uint32_t)strlen(line));
}

static int i_am_host(void)
{
    lanline_guid host = 0;

    lanline_mesh_host(node, &host);
    return host == my_id;
}

static void handle(const lanline_event *event)
{
    unsigned long long peer = (unsigned long long)event->peer;
    lanline_request request;

    switch (event->type) {
    case LANLINE_EVENT_SERVER_CONNECTED:
        printf("at the server; join me as %llu\n", (unsigned long long)my_id);
        break;
    case LANLINE_EVENT_SERVER_FAILED:
        printf("no server: %s\n", text_of(event));
        running = 0;
        break;
    case LANLINE_EVENT_CONNECTED:
        printf("%llu connected (%s)\n", peer, lanline_path_name(event->path));
        /* Whoever connects to the host is invited: first it has to reach every other player. */
        if (i_am_host())
            check(lanline_join_start(node, event->peer, my_name, (uint32_t)strlen(my_name), &request), "invite");
        break;
    case LANLINE_EVENT_VERIFIED_JOIN_CAPABLE:
        /* It did. The game may still turn it down here, with its own words. */
        printf("%llu reached everybody and comes in\n", peer);
        check(lanline_join_respond(node, event->peer, 1, "welcome", 7), "accept");
        break;
    case LANLINE_EVENT_VERIFIED_JOIN_FAILED:
        printf("%llu could not join: %s\n", peer, text_of(event));
        break;
    case LANLINE_EVENT_MEMBER_JOINED:
        printf("%llu is in the session\n", peer);
        say_to_all("welcome everybody");
        break;
    case LANLINE_EVENT_MEMBER_LEFT:
        printf("%llu left the session (%s)\n", peer, lanline_result_name(event->code));
        break;
    case LANLINE_EVENT_NEW_HOST:
        printf("%llu is the host now%s\n", peer, event->peer == my_id ? " (me)" : "");
        break;
    case LANLINE_EVENT_PATH_CHANGED:
        /* A connection that began over a relay is direct now, or the other way round. Nothing to do: nothing is lost. */
        printf("%llu: the path is %s now\n", peer, lanline_path_name(event->path));
        break;
    case LANLINE_EVENT_MESSAGE:
        printf("%.*s\n", (int)event->data_len, (const char *)event->data);
        break;
    case LANLINE_EVENT_FATAL:
        printf("the library failed: %s\n", text_of(event));
        running = 0;
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

    if (argc != 3) {
        fprintf(stderr, "usage: host SERVER:PORT NAME\n");
        return 2;
    }
    my_name = argv[2];
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);

    lanline_node_options_init(&options);
    options.app = "lanline-example";
    options.app_len = (uint32_t)strlen(options.app);
    check(lanline_node_create(&options, &node), "create");
    check(lanline_node_guid(node, &my_id), "guid");
    check(lanline_server_connect(node, argv[1], (uint32_t)strlen(argv[1]), NULL, &request), "connect");
    /* The session begins now: time that was spent in menus does not make anybody the host. */
    check(lanline_mesh_reset_host_calculation(node), "begin");

    while (running) {
        lanline_wait(node, 16); /* A game renders its frame here instead. */
        while ((count = lanline_poll(node, events, (uint32_t)sizeof events[0], 32)) > 0)
            for (i = 0; i < count; i++)
                handle(&events[i]);
        if (time(NULL) - last_words >= 2) {
            say_to_all("still here");
            last_words = time(NULL);
        }
    }
    lanline_node_destroy(node, 1000);
    return 1;
}
