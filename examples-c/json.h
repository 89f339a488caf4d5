/* What a line protocol of JSON needs: a growing text with JSON writing, and reading of `verb key=value …` lines. */
#ifndef LANLINE_EXAMPLE_JSON_H
#define LANLINE_EXAMPLE_JSON_H

#include <stddef.h>
#include <stdint.h>

/* A text that grows. Running out of memory ends the program: there is nothing useful left to do. */
struct text {
    char *data;
    size_t len;
    size_t capacity;
};

void text_free(struct text *text);
void text_clear(struct text *text);
void text_bytes(struct text *text, const char *bytes, size_t len);
void text_add(struct text *text, const char *string);
void text_format(struct text *text, const char *format, ...);

/* Writes bytes as a JSON string with its quotes. Whatever the bytes are, the result is valid JSON: what is not UTF-8 becomes U+FFFD. */
void json_string(struct text *text, const char *bytes, size_t len);
/* The same of at most `limit` bytes; a character that the limit would split is left out. */
void json_string_cut(struct text *text, const char *bytes, size_t len, size_t limit);
/* Writes `,"key":` and the value. */
void json_key(struct text *text, const char *key);
void json_key_string(struct text *text, const char *key, const char *string);
void json_key_number(struct text *text, const char *key, int64_t number);
/* 64-bit ids travel as strings: not every JSON reader keeps integers above 2^53. */
void json_key_id(struct text *text, const char *key, uint64_t id);

/* Most `key=value` pairs on a line; the longest verb of the contract takes fewer than half of that. */
#define COMMAND_MAX_ARGUMENTS 32

/* One value of a command line. The bytes may hold zeros; there is always one more zero behind them. */
struct argument {
    const char *key;
    char *value;
    size_t len;
    int used;
};

/* A command line, taken apart in place. */
struct command {
    const char *verb;
    struct argument arguments[COMMAND_MAX_ARGUMENTS];
    int count;
};

/* Takes `line` (of `len` bytes, with a writable byte behind them) apart in place. 0: fine; otherwise a text that says what is wrong. */
const char *command_parse(struct command *command, char *line, size_t len);
/* The argument of that key, marked as used; NULL if there is none. */
struct argument *command_argument(struct command *command, const char *key);

#endif
