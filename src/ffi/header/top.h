/*
 * Lanline connects a game's players directly, across whatever routers they sit behind.
 * Generated from src/ffi; do not edit.
 *
 *   lanline_node_options options;
 *   lanline_node_options_init(&options);
 *   options.app = "my-game"; options.app_len = 7;
 *   lanline_node node;
 *   if (lanline_node_create(&options, &node) != LANLINE_OK) ...   (lanline_last_error says why)
 *   once a frame:  while ((n = lanline_poll(node, events, sizeof events[0], 64)) > 0) ...
 *
 * Rules that hold for all calls
 * - Results: 0 is LANLINE_OK, negative numbers are errors (enum lanline_result), positive ones are counts.
 * - After an error, and only then, lanline_last_error gives the reason in words, for the calling thread.
 * - What takes time is asked for with a call and ends in exactly one event that carries its request id.
 * - Everything passed in is copied before the call returns. Texts are UTF-8, pointer and length, no NUL needed.
 * - Nothing is ever to be freed by the caller. There are no callbacks.
 * - Any call may be made from any thread. Only destroy, wait and shutdown_all block, within their time limits.
 * - Pointers must be valid for the lengths given; an output pointer may be NULL only where its description says so.
 */
