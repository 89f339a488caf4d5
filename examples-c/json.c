#include "json.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void text_reserve(struct text *text, size_t more)
{
    size_t needed = text->len + more + 1;
    size_t capacity = text->capacity ? text->capacity : 256;
    char *grown;

    if (needed <= text->capacity)
        return;
    while (capacity < needed)
        capacity *= 2;
    grown = (char *)realloc(text->data, capacity);
    if (!grown) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
    text->data = grown;
    text->capacity = capacity;
}

void text_free(struct text *text)
{
    free(text->data);
    memset(text, 0, sizeof *text);
}

void text_clear(struct text *text)
{
    text_reserve(text, 0);
    text->len = 0;
    text->data[0] = 0;
}

void text_bytes(struct text *text, const char *bytes, size_t len)
{
    text_reserve(text, len);
    if (len)
        memcpy(text->data + text->len, bytes, len);
    text->len += len;
    text->data[text->len] = 0;
}

void text_add(struct text *text, const char *string)
{
    text_bytes(text, string, strlen(string));
}

void text_format(struct text *text, const char *format, ...)
{
    va_list list, again;
    int needed;

    va_start(list, format);
    va_copy(again, list);
    needed = vsnprintf(NULL, 0, format, list);
    va_end(list);
    if (needed > 0) {
        text_reserve(text, (size_t)needed);
        vsnprintf(text->data + text->len, (size_t)needed + 1, format, again);
        text->len += (size_t)needed;
    }
    va_end(again);
}

/* Length of the UTF-8 sequence at `bytes`, 0 if it is none (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF). */
static size_t utf8_length(const unsigned char *bytes, size_t len)
{
    size_t want, i;

    if (bytes[0] < 0x80)
        return 1;
    if (bytes[0] >= 0xC2 && bytes[0] <= 0xDF)
        want = 2;
    else if (bytes[0] >= 0xE0 && bytes[0] <= 0xEF)
        want = 3;
    else if (bytes[0] >= 0xF0 && bytes[0] <= 0xF4)
        want = 4;
    else
        return 0;
    if (len < want)
        return 0;
    for (i = 1; i < want; i++)
        if ((bytes[i] & 0xC0) != 0x80)
            return 0;
    if ((bytes[0] == 0xE0 && bytes[1] < 0xA0) || (bytes[0] == 0xED && bytes[1] > 0x9F) ||
        (bytes[0] == 0xF0 && bytes[1] < 0x90) || (bytes[0] == 0xF4 && bytes[1] > 0x8F))
        return 0;
    return want;
}

static void json_character(struct text *text, unsigned char c)
{
    switch (c) {
    case '"': text_add(text, "\\\""); break;
    case '\\': text_add(text, "\\\\"); break;
    case '\n': text_add(text, "\\n"); break;
    case '\r': text_add(text, "\\r"); break;
    case '\t': text_add(text, "\\t"); break;
    default:
        if (c < 0x20 || c == 0x7F)
            text_format(text, "\\u%04x", c);
        else
            text_bytes(text, (const char *)&c, 1);
    }
}

void json_string(struct text *text, const char *bytes, size_t len)
{
    const unsigned char *at = (const unsigned char *)bytes;
    size_t i = 0, n;

    text_add(text, "\"");
    while (i < len) {
        n = utf8_length(at + i, len - i);
        if (n == 1)
            json_character(text, at[i]);
        else if (n > 1)
            text_bytes(text, bytes + i, n);
        else
            text_add(text, "\\ufffd");
        i += n ? n : 1;
    }
    text_add(text, "\"");
}

void json_string_cut(struct text *text, const char *bytes, size_t len, size_t limit)
{
    size_t start;

    if (len > limit) {
        /* Step back to the start of the character that the limit falls into; drop it if it is a whole one that does not fit. */
        start = limit;
        while (start > 0 && limit - start < 3 && ((unsigned char)bytes[start] & 0xC0) == 0x80)
            start--;
        if (utf8_length((const unsigned char *)bytes + start, len - start) > limit - start)
            limit = start;
        len = limit;
    }
    json_string(text, bytes, len);
}

void json_key(struct text *text, const char *key)
{
    text_format(text, ",\"%s\":", key);
}

void json_key_string(struct text *text, const char *key, const char *string)
{
    json_key(text, key);
    json_string(text, string, strlen(string));
}

void json_key_number(struct text *text, const char *key, int64_t number)
{
    text_format(text, ",\"%s\":%lld", key, (long long)number);
}

void json_key_id(struct text *text, const char *key, uint64_t id)
{
    text_format(text, ",\"%s\":\"%llu\"", key, (unsigned long long)id);
}

/* Four hexadecimal digits, or -1. */
static long hex4(const char *at, const char *end)
{
    long value = 0;
    int i, digit;

    if (end - at < 4)
        return -1;
    for (i = 0; i < 4; i++) {
        if (at[i] >= '0' && at[i] <= '9')
            digit = at[i] - '0';
        else if (at[i] >= 'a' && at[i] <= 'f')
            digit = at[i] - 'a' + 10;
        else if (at[i] >= 'A' && at[i] <= 'F')
            digit = at[i] - 'A' + 10;
        else
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

static char *utf8_write(char *out, long c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xC0 | (c >> 6));
        *out++ = (char)(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        *out++ = (char)(0xE0 | (c >> 12));
        *out++ = (char)(0x80 | ((c >> 6) & 0x3F));
        *out++ = (char)(0x80 | (c & 0x3F));
    } else {
        *out++ = (char)(0xF0 | (c >> 18));
        *out++ = (char)(0x80 | ((c >> 12) & 0x3F));
        *out++ = (char)(0x80 | ((c >> 6) & 0x3F));
        *out++ = (char)(0x80 | (c & 0x3F));
    }
    return out;
}

/* Reads `\uXXXX` behind the `u`, with its second half if it is a surrogate pair. NULL: bad. An escape is never shorter than its UTF-8. */
static char *unescape_unicode(char *at, char *end, char **out)
{
    long c = hex4(at, end), low;

    if (c < 0)
        return NULL;
    at += 4;
    if (c >= 0xD800 && c <= 0xDBFF) {
        if (end - at < 6 || at[0] != '\\' || at[1] != 'u')
            return NULL;
        low = hex4(at + 2, end);
        if (low < 0xDC00 || low > 0xDFFF)
            return NULL;
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
        at += 6;
    } else if (c >= 0xDC00 && c <= 0xDFFF) {
        return NULL;
    }
    *out = utf8_write(*out, c);
    return at;
}

/* Unescapes the JSON string whose first byte behind the quote is `at`, in place. Gives what stands behind the closing quote, or NULL. */
static char *unescape(char *at, char *end, size_t *len)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char *start = at, *out = at;
    const char *known;

    while (at < end && *at != '"') {
        if (*at != '\\') {
            *out++ = *at++;
            continue;
        }
        if (++at == end)
            return NULL;
        known = (const char *)memchr(from, *at, sizeof from - 1);
        if (known) {
            *out++ = to[known - from];
            at++;
        } else if (*at == 'u') {
            at = unescape_unicode(at + 1, end, &out);
            if (!at)
                return NULL;
        } else {
            return NULL;
        }
    }
    if (at == end)
        return NULL;
    *len = (size_t)(out - start);
    *out = 0;
    return at + 1;
}

/* The end of a bare JSON object or list that starts at `at`. */
static char *bare_json_end(char *at, char *end)
{
    int depth = 0, quoted = 0;

    for (; at < end; at++) {
        if (quoted) {
            if (*at == '\\' && at + 1 < end)
                at++;
            else if (*at == '"')
                quoted = 0;
        } else if (*at == '"') {
            quoted = 1;
        } else if (*at == '{' || *at == '[') {
            depth++;
        } else if ((*at == '}' || *at == ']') && --depth == 0) {
            return at + 1;
        }
    }
    return at;
}

static int is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static char *skip_word(char *at, char *end, char stop)
{
    while (at < end && !is_space(*at) && *at != stop)
        at++;
    return at;
}

const char *command_parse(struct command *command, char *line, size_t len)
{
    char *at = line, *end = line + len, *stop;
    struct argument *argument;

    memset(command, 0, sizeof *command);
    command->verb = "";
    *end = 0;
    while (at < end && is_space(*at))
        at++;
    command->verb = at;
    at = skip_word(at, end, 0);
    while (at < end) {
        *at++ = 0;
        while (at < end && is_space(*at))
            at++;
        if (at == end)
            break;
        if (command->count == COMMAND_MAX_ARGUMENTS)
            return "too many arguments on one line";
        argument = &command->arguments[command->count];
        argument->key = at;
        at = skip_word(at, end, '=');
        if (at == end || *at != '=')
            return "an argument is not of the form key=value";
        *at++ = 0;
        if (at < end && *at == '"') {
            argument->value = at + 1;
            stop = unescape(at + 1, end, &argument->len);
            if (!stop)
                return "a quoted value does not end, or has a bad escape";
            if (stop < end && !is_space(*stop))
                return "something follows a quoted value without a space";
        } else {
            argument->value = at;
            stop = at < end && *at == '{' ? bare_json_end(at, end) : skip_word(at, end, 0);
            argument->len = (size_t)(stop - at);
        }
        at = stop;
        command->count++;
    }
    return NULL;
}

struct argument *command_argument(struct command *command, const char *key)
{
    int i;

    for (i = 0; i < command->count; i++)
        if (!strcmp(command->arguments[i].key, key)) {
            command->arguments[i].used = 1;
            return &command->arguments[i];
        }
    return NULL;
}
