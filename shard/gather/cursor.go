package gather

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

var (
	// ErrBadCursor is returned by [Cursors.Open] for a text that no key of these
	// Cursors has signed: it is malformed, was changed, has another version or the key is
	// gone. In an HTTP handler it is the client's fault, status 400.
	ErrBadCursor = errors.New("gather: bad cursor")

	// ErrForeignCursor is returned by [Cursors.Open] for a cursor that was signed, but
	// for another query: another filter or order. Also the client's fault.
	ErrForeignCursor = errors.New("gather: cursor of another query")
)

const (
	cursorVersion   = 1
	fingerprintSize = 16   // of SHA-256: it tells queries apart, the signature protects it
	maxCursor       = 4096 // characters
	minKey          = 32   // bytes, the size of the hash (RFC 2104, section 3)
)

// base64url, in which one cursor has one text: unused bits must be 0.
var cursorEncoding = base64.RawURLEncoding.Strict()

// Cursors seals positions into cursors: texts that a client carries to the next
// request and cannot change. A cursor is a version, the hash of the query's
// fingerprint, the position, and HMAC-SHA256 of all that, in base64url, which stands in
// a URL as it is. The position is signed and not encrypted: a client can read it. It
// does not expire, and says nothing of who may use it.
//
// Use [Query], which does all of it, unless the position is not one of [Query].
//
// A Cursors is immutable and safe for concurrent use.
type Cursors struct{ keys [][]byte }

// NewCursors returns Cursors that sign with the first key and accept what any of them
// signed: to change keys, put the new one in front everywhere and drop the old one when
// its cursors are of no more use. Where several processes serve, first add the new key
// behind, since each must know it before one signs with it. Each key is secret, random
// and at least 32 bytes long; the keys are copied.
//
// It returns an error if there is no key or one is shorter.
func NewCursors(keys ...[]byte) (*Cursors, error) {
	if len(keys) == 0 {
		return nil, errors.New("gather: no key for cursors, expected one or more")
	}
	c := &Cursors{}
	for i, key := range keys {
		if len(key) < minKey {
			return nil, fmt.Errorf("gather: key %d for cursors has %d bytes, expected %d or more", i, len(key), minKey)
		}
		c.keys = append(c.keys, slices.Clone(key))
	}
	return c, nil
}

// Seal returns the cursor of a position in the query that the fingerprint describes.
// It returns an error if that is longer than 4096 characters, which leaves the position
// about 3,000 bytes. It costs two or three microseconds.
func (c *Cursors) Seal(fingerprint string, position []byte) (string, error) {
	if c == nil || len(c.keys) == 0 {
		return "", errors.New("gather: Cursors has no key, expected one of NewCursors")
	}
	body := append([]byte{cursorVersion}, fingerprintHash(fingerprint)...)
	body = append(body, position...)
	text := cursorEncoding.EncodeToString(append(body, sign(c.keys[0], body)...))
	if len(text) > maxCursor {
		return "", fmt.Errorf("gather: cursor has %d characters for a position of %d bytes, expected up to %d", len(text), len(position), maxCursor)
	}
	return text, nil
}

// Open returns the position that Seal put into a cursor for the same fingerprint. It
// returns an error that wraps [ErrBadCursor] or [ErrForeignCursor]. Signatures are
// compared in constant time. It reads at most 4096 characters, and costs two or three
// microseconds, and one more for each further key that it has to try.
func (c *Cursors) Open(fingerprint, cursor string) ([]byte, error) {
	if len(cursor) > maxCursor {
		return nil, fmt.Errorf("%w: %d characters, expected up to %d", ErrBadCursor, len(cursor), maxCursor)
	}
	data, err := cursorEncoding.DecodeString(cursor)
	if err != nil || strings.ContainsAny(cursor, "\r\n") { // which the decoder skips
		return nil, fmt.Errorf("%w: not base64url", ErrBadCursor)
	}
	if len(data) < 1+fingerprintSize+sha256.Size {
		return nil, fmt.Errorf("%w: too short", ErrBadCursor)
	}
	if data[0] != cursorVersion {
		return nil, fmt.Errorf("%w: version %d, expected %d", ErrBadCursor, data[0], cursorVersion)
	}
	body, signature := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if !slices.ContainsFunc(c.keys, func(key []byte) bool { return hmac.Equal(sign(key, body), signature) }) {
		return nil, fmt.Errorf("%w: no key has signed it", ErrBadCursor)
	}
	if string(body[1:1+fingerprintSize]) != string(fingerprintHash(fingerprint)) {
		return nil, ErrForeignCursor
	}
	return body[1+fingerprintSize:], nil
}

func fingerprintHash(fingerprint string) []byte {
	sum := sha256.Sum256([]byte(fingerprint))
	return sum[:fingerprintSize]
}

func sign(key, body []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("evenkeel/shard/gather cursor\x00")) // the key may sign other things too
	h.Write(body)
	return h.Sum(nil)
}
