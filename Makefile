# The first commands of a fresh clone. CUDA=1 installs libtorch with its CUDA libraries.

.PHONY: sample test test-web goldens lint libtorch nvrtc tools site

CARGO ?= cargo

# A first picture: golden retrievers from the shipped model.
sample: libtorch
	@$(CARGO) build --release
	@$(CARGO) run --quiet --release -- sample --class 207

# All tests, in the release profile: one compilation serves them and `make sample`.
test: libtorch nvrtc
	$(CARGO) test --release

# `gen serve` with OpenAI's clients from PyPI and npm, and the page in jsdom and in Chromium where it is installed.
test-web: libtorch
	@scripts/test-web.sh

# Only the golden tests, on any folder of their form; without GOLDENS_DIR, on the committed ones.
goldens: libtorch
	$(if $(GOLDENS_DIR),GOLDENS_DIR='$(abspath $(GOLDENS_DIR))') $(CARGO) test --release --test goldens -- --nocapture

lint: libtorch
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --release --no-deps --document-private-items

# What plain `cargo build` and `cargo test` need.
libtorch: tools
	@CUDA='$(CUDA)' scripts/install-libtorch.sh

# With it `make test` also compiles the kernels for a GPU, which needs none.
nvrtc: libtorch
	@scripts/install-nvrtc.sh

tools:
	@scripts/check-tools.sh

# The documentation as a site, in .site/html.
site:
	scripts/site.sh
