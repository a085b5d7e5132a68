module github.com/evenkeel-go/evenkeel/coalesce/redislease

go 1.26.0

require (
	github.com/evenkeel-go/evenkeel v0.0.0
	github.com/redis/rueidis v1.0.79
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

replace github.com/evenkeel-go/evenkeel => ../..
