// How functions that Rust calls say what went wrong.

#pragma once

#include <cstring>
#include <exception>

namespace {

// Null, or the words of what `work` threw as text that the caller frees.
template <class Work>
char* caught(const Work& work) {
  try {
    work();
    return nullptr;
  } catch (const std::exception& e) {
    return strdup(e.what());
  }
}

}  // namespace
