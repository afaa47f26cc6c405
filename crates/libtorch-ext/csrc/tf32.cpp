// Whether a GPU rounds the inputs of fp32 products and convolutions to ten bits.
// Functions return null, or an error message that the caller frees.

#include <ATen/Context.h>

#include "caught.h"

extern "C" {

char* ext_set_tf32(bool on) {
  return caught([&] {
    at::globalContext().setAllowTF32CuBLAS(on);
    at::globalContext().setAllowTF32CuDNN(on);
  });
}

char* ext_get_tf32(bool* products, bool* convolutions) {
  return caught([&] {
    *products = at::globalContext().allowTF32CuBLAS();
    *convolutions = at::globalContext().allowTF32CuDNN();
  });
}
}
