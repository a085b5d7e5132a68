.PHONY: help check ci test race bench fmt chat

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' Makefile

check: ## the quick half of the gate: formats, linters, module files, tests
	.ci/run quick

ci: ## the whole gate
	.ci/run

test: ## the tests of every module; what needs a server skips without it
	go test work

race: ## the tests under the race detector
	go test -race -shuffle=on work

bench: ## the benchmarks of the five packages
	go test -run '^$$' -bench . ./...

fmt: ## format everything
	GOWORK=off go tool -modfile=tools/go.mod gofumpt -w .

chat: ## the example that runs on all five packages
	go run ./examples/chat
