# The two commands of the README. Everything else is cargo: see CONTRIBUTING.md.

# Builds stay outside of the clone unless CARGO_TARGET_DIR says otherwise; `.ci/run` uses the same place.
ifeq ($(strip $(CARGO_TARGET_DIR)),)
CARGO_TARGET_DIR := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/raystream-target
endif
export CARGO_TARGET_DIR

.PHONY: demo test

demo:
	.ci/setup
	cargo build --release --locked -p raystream -p raystream-samples
	sh clients/demo.sh

test:
	.ci/run
