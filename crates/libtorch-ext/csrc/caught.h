// Error messages for functions called from Rust.

#pragma once

#include <cstring>
#include <exception>

namespace {

// Null, or the message of the exception thrown by `work`, which the caller frees.
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
