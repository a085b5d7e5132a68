package outbox

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// A Message is one event on its way out of the database. To Add it, set Topic
// and whatever else of the first group; the rest is filled in for the Publisher.
//
// Topic, Key and Type are UTF-8 without NUL and at most 255 bytes each, names of
// headers are tokens of RFC 9110, values of headers are UTF-8 without NUL, and
// DeliverAt is not after the year 9999: what every supported database can store.
type Message struct {
	// Topic is where the message goes: a topic, a subject, a queue, a URL.
	// What it means is up to the Publisher. It must not be empty.
	Topic string
	// Key is what the message is about, such as "order/42". Messages of one
	// topic and key are delivered in the order in which they were added, and
	// one that fails holds up those behind it. Messages without a key have no
	// order and hold up nobody.
	Key string
	// Type names the kind of event, such as "order.paid".
	Type string
	// Payload is the content, in any encoding. A nil payload comes out empty.
	Payload []byte
	// Header holds what the destination wants beside the payload, such as a
	// content type or a trace context. It may be nil.
	Header map[string]string
	// DeliverAt, if set, is the earliest time of delivery by the clock of the
	// database, to the microsecond. It takes the message out of the order of
	// its key until then: later messages of the key do not wait for it.
	DeliverAt time.Time

	// ID is given by the database, grows with every Add and is never used
	// twice. It is the same at every delivery of the message, so consumers
	// can use it to drop what they have seen already.
	ID int64
	// CreatedAt is the time of Add by the clock of the database.
	CreatedAt time.Time
	// Attempt is 1 at the first delivery. In a dead message it is the number
	// of attempts that were made.
	Attempt int
	// LastError is the text of the error of the attempt before, cut to 1 KiB.
	LastError string
}

const (
	maxName  = 255
	maxError = 1 << 10
)

// validate returns what is wrong with m, or "".
func (m *Message) validate(maxPayload int) string {
	if m.Topic == "" {
		return "Topic is empty"
	}
	for _, f := range [...]struct{ name, value string }{{"Topic", m.Topic}, {"Key", m.Key}, {"Type", m.Type}} {
		if len(f.value) > maxName {
			return fmt.Sprintf("%s has %d bytes, want at most %d", f.name, len(f.value), maxName)
		}
		if !isText(f.value) {
			return fmt.Sprintf("%s %q is not UTF-8 without NUL", f.name, f.value)
		}
	}
	if len(m.Payload) > maxPayload {
		return fmt.Sprintf("Payload has %d bytes, want at most %d (Options.MaxPayload)", len(m.Payload), maxPayload)
	}
	for name, value := range m.Header {
		if !isToken(name) {
			return fmt.Sprintf("Header name %q is not a token of letters, digits and !#$%%&'*+-.^_`|~", name)
		}
		if !isText(value) {
			return fmt.Sprintf("Header %s value %q is not UTF-8 without NUL", name, value)
		}
	}
	if !m.DeliverAt.IsZero() && (m.DeliverAt.Year() < 1970 || m.DeliverAt.Year() > 9999) {
		return fmt.Sprintf("DeliverAt %v is outside the years 1970 to 9999", m.DeliverAt)
	}
	return ""
}

func isText(s string) bool {
	return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

// isToken follows RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// encodeHeader returns the column of a header: JSON, or nothing at all for most
// messages.
func encodeHeader(h map[string]string) (string, error) {
	if len(h) == 0 {
		return "", nil
	}
	b, err := json.Marshal(h)
	return string(b), err
}

func decodeHeader(s string) (map[string]string, error) {
	if s == "" {
		return nil, nil
	}
	var h map[string]string
	if err := json.Unmarshal([]byte(s), &h); err != nil {
		return nil, fmt.Errorf("header is not a JSON object of strings: %w", err)
	}
	return h, nil
}

// Times are microseconds since 1970 in the database; 0 is no time.

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// clip makes the text of an error fit to be stored.
func clip(s string) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\ufffd")
	if len(s) <= maxError {
		return s
	}
	s = s[:maxError]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}
