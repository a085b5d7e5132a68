// Package evenkeel is the root of five independent packages, one for each
// pattern that lets a service grow past one machine. It holds no code: import
// the package that you need.
//
//   - Use [github.com/evenkeel-go/evenkeel/balance] if you have several
//     backends and want each request to go to one that is not busy.
//   - Use [github.com/evenkeel-go/evenkeel/coalesce] if many callers ask for
//     the same thing at once and the work should run once.
//   - Use [github.com/evenkeel-go/evenkeel/shard] if one database is not
//     enough, so that a key must find its shard and a query must ask them all.
//   - Use [github.com/evenkeel-go/evenkeel/outbox] if a commit must be followed
//     by a message, whoever crashes in between.
//   - Use [github.com/evenkeel-go/evenkeel/ratelimit] if a caller may not have
//     more than its share.
//
// None imports another. They meet in examples/chat, a service that runs on all
// five.
package evenkeel
