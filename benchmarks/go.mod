module github.com/evenkeel-go/evenkeel/benchmarks

go 1.26.0

require (
	github.com/bufbuild/httplb v0.4.1
	github.com/cespare/xxhash/v2 v2.3.0
	github.com/dgryski/go-jump v0.0.0-20170409065014-e1f439676b57
	github.com/evenkeel-go/evenkeel v0.0.0
	github.com/go-kratos/kratos/v2 v2.8.3
	github.com/mroth/weightedrand/v2 v2.1.0
	github.com/sethvargo/go-limiter v0.7.1
	github.com/stretchr/testify v1.12.1
	go.uber.org/ratelimit v0.3.1
	golang.org/x/sync v0.25.0
	golang.org/x/time v0.16.0
	resenje.org/singleflight v0.4.3
)

require (
	github.com/benbjohnson/clock v1.3.0 // indirect
	github.com/golang/protobuf v1.5.4 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.31.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20240102182953-50ed04b92917 // indirect
	google.golang.org/grpc v1.61.1 // indirect
	google.golang.org/protobuf v1.33.0 // indirect
)

replace github.com/evenkeel-go/evenkeel => ..
