// Package examples is where the lessons are, one folder each. It has no code.
//
//   - chat: a chat backend that runs on all five packages, with a live page on
//     which each can be turned off. Run it with go run ./examples/chat.
//   - outbox: four ways to lose an event, and the one that does not, with the same
//     crashes. Run it with go run ./examples/outbox.
package examples
