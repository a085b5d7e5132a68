module github.com/evenkeel-go/evenkeel/internal/integration

go 1.26

require github.com/evenkeel-go/evenkeel v0.0.0

replace github.com/evenkeel-go/evenkeel => ../..
