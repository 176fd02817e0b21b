// A guest in C: answers prompts, and asks the cache before it thinks.

#include "ask.h"

#include <stdlib.h>
#include <string.h>

static bool look_up(reflex_cache_cache_name_t *name, ask_string_t *text);
static void keep(reflex_cache_cache_name_t *name, const ask_string_t *text);
static void think(const ask_string_t *prompt, ask_string_t *text);

void exports_ask_ask(ask_list_u8_t *tenant, ask_string_t *prompt, ask_answer_t *answer) {
  reflex_cache_cache_name_t name = {
      .tag = REFLEX_CACHE_CACHE_NAME_PROMPT,
      .val.prompt = {.tenant = {tenant->ptr, tenant->len}, .text = *prompt},
  };
  answer->cached = look_up(&name, &answer->text);
  if (!answer->cached) {
    think(prompt, &answer->text);
    keep(&name, &answer->text);
  }
  // The arguments are ours; what is returned is freed by the caller.
  ask_list_u8_free(tenant);
  ask_string_free(prompt);
}

/// The cached answer of that name; nothing if the cache is in trouble.
static bool look_up(reflex_cache_cache_name_t *name, ask_string_t *text) {
  reflex_cache_cache_option_own_entry_t found;
  reflex_cache_cache_error_t error;
  if (!reflex_cache_cache_lookup(name, &found, &error)) {
    reflex_cache_cache_error_free(&error);
    return false;
  }
  if (!found.is_some) {
    return false;
  }
  reflex_cache_cache_borrow_entry_t entry = reflex_cache_cache_borrow_entry(found.val);
  uint64_t size = reflex_cache_cache_method_entry_size(entry);
  text->ptr = malloc(size);
  text->len = 0;
  // One read may give less than what is asked for.
  while (text->ptr != NULL) {
    ask_list_u8_t part;
    reflex_cache_cache_method_entry_read(entry, text->len, size - text->len, &part);
    if (part.len == 0) {
      break;
    }
    memcpy(text->ptr + text->len, part.ptr, part.len);
    text->len += part.len;
    ask_list_u8_free(&part);
  }
  // An entry pins its storage, so it is let go at once.
  reflex_cache_cache_entry_drop_own(found.val);
  return text->ptr != NULL;
}

/// Stores an answer for an hour, if the cache takes it.
static void keep(reflex_cache_cache_name_t *name, const ask_string_t *text) {
  ask_list_u8_t metadata = {(uint8_t *)"text/plain", strlen("text/plain")};
  ask_list_u8_t payload = {text->ptr, text->len};
  reflex_cache_cache_insert_options_t options = {.ttl_seconds = {true, 3600}};
  reflex_cache_cache_error_t error;
  if (!reflex_cache_cache_insert(name, &metadata, &payload, &options, &error)) {
    reflex_cache_cache_error_free(&error);
  }
}

/// Stands for a call of a model.
static void think(const ask_string_t *prompt, ask_string_t *text) {
  const char *begin = "You said: ";
  size_t length = strlen(begin);
  text->len = length + prompt->len;
  text->ptr = malloc(text->len);
  if (text->ptr == NULL) {
    abort();
  }
  memcpy(text->ptr, begin, length);
  memcpy(text->ptr + length, prompt->ptr, prompt->len);
}
