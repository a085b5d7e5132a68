package admin

import (
	"net/http"
	"time"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// A Source stands in for an outbox.
type (
	Source = source
	Letter = letter
)

// NewHandler returns the handler of a Source.
func NewHandler(s Source) http.Handler { return newHandler(s) }

// LetterOf is how a dead message is shown.
func LetterOf(m outbox.Message, size int) Letter { return letterOf(m, size) }

// ParseDead, ParsePage and the others read the parameters of a request.
func ParseDead(raw string) (after int64, limit, bytes int, err error) {
	q, err := parseDead(raw)
	return q.after, q.limit, q.bytes, err
}

func ParsePage(raw string) (after int64, did string, n int64, err error) {
	q, err := parsePage(raw)
	return q.after, q.did, q.n, err
}

func ParseIDs(raw string) ([]int64, error)      { return parseIDs(raw) }
func ParseBefore(raw string) (time.Time, error) { return parseBefore(raw) }
func ParseTopic(raw string) (string, error)     { return parseTopic(raw) }
