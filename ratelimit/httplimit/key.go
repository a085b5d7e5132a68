package httplimit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// KeyFunc says whose limit a request is counted against. An error, or an empty key,
// says that the request names nobody: it is refused with 400 Bad Request and never put
// on a limit that all such requests share.
//
// If it is the server that cannot tell, because its own store of sessions is down, say,
// return an error that wraps [ErrPass].
type KeyFunc func(*http.Request) (string, error)

var (
	// ErrPass is for a KeyFunc to wrap when it failed through no fault of the client.
	// The policy is then left out for this request, as the package documentation says
	// under "Its own errors".
	ErrPass = errors.New("httplimit: the key cannot be told")

	// ErrNoKey is wrapped by the errors of this package's key functions when a
	// request does not have what they read.
	ErrNoKey = errors.New("httplimit: no key")
)

// Header returns a KeyFunc that reads a request header, such as X-Api-Key. A header
// that is missing, empty or there twice is an error that wraps [ErrNoKey].
//
// The client chooses what is in a header: use it behind a middleware that has checked
// it, or in a [Join] with something that the client does not choose. If it is a secret,
// wrap it in [Hashed].
func Header(name string) KeyFunc {
	name = http.CanonicalHeaderKey(name)
	return func(r *http.Request) (string, error) {
		values := r.Header[name]
		if len(values) != 1 || values[0] == "" {
			return "", fmt.Errorf("%w: header %s is there %d times, expected once and not empty", ErrNoKey, name, len(values))
		}
		return values[0], nil
	}
}

// Bearer is a [KeyFunc] that reads the token of "Authorization: Bearer token" (RFC
// 6750), without checking it. Its errors wrap [ErrNoKey] and do not repeat the header.
// A token is a secret: wrap Bearer in [Hashed].
func Bearer(r *http.Request) (string, error) {
	values := r.Header["Authorization"]
	if len(values) == 1 {
		scheme, token, _ := strings.Cut(values[0], " ")
		if token = strings.Trim(token, " "); token != "" && !strings.Contains(token, " ") && strings.EqualFold(scheme, "Bearer") {
			return token, nil
		}
	}
	return "", fmt.Errorf("%w: no bearer token", ErrNoKey)
}

// Hashed returns a KeyFunc that gives the first 128 bits of the SHA-256 of another's
// key, in hexadecimal: so that a secret appears neither in the labels of a
// [ratelimit.Keyed] nor in what a hook writes. It is no protection for keys that can be
// guessed. It costs about as much again as the rest of the middleware.
func Hashed(key KeyFunc) KeyFunc {
	return func(r *http.Request) (string, error) {
		k, err := key(r)
		if err != nil || k == "" {
			return "", err
		}
		sum := sha256.Sum256([]byte(k))
		return hex.EncodeToString(sum[:16]), nil
	}
}

// User returns a KeyFunc that takes the key from the context of the request, where an
// authentication has put it. Reporting false, or an empty key, is an error that wraps
// [ErrNoKey].
func User(of func(context.Context) (string, bool)) KeyFunc {
	return func(r *http.Request) (string, error) {
		user, ok := of(r.Context())
		if !ok || user == "" {
			return "", fmt.Errorf("%w: no user in the context", ErrNoKey)
		}
		return user, nil
	}
}

// Route is a [KeyFunc] that gives the pattern of [http.ServeMux] that matched, such as
// "GET /users/{id}": in a [Join] it makes a limit for each route. The pattern is known
// to handlers that the mux calls, so the middleware must be inside the mux, around
// them. Otherwise Route returns an error that wraps [ErrPass]: that is a fault of the
// program and not of a client.
func Route(r *http.Request) (string, error) {
	if r.Pattern == "" {
		return "", fmt.Errorf("%w: the request has no pattern, expected the middleware inside an http.ServeMux", ErrPass)
	}
	return r.Pattern, nil
}

// Join returns a KeyFunc that combines the keys of several. No two different lists of
// keys give the same key, whatever is in them: each is written with its length. If one
// of them is empty or an error, so is the whole.
func Join(keys ...KeyFunc) KeyFunc {
	return func(r *http.Request) (string, error) {
		b := make([]byte, 0, 64)
		for _, key := range keys {
			k, err := key(r)
			if err != nil || k == "" {
				return "", err
			}
			b = strconv.AppendInt(b, int64(len(k)), 10)
			b = append(b, ':')
			b = append(b, k...)
		}
		return string(b), nil
	}
}
