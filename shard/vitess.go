package shard

import (
	"crypto/cipher"
	"crypto/des"
	"encoding/binary"
	"sync"
)

// VitessHash is the point that Vitess's "hash" vindex gives to an integer key: one
// block of DES with a key of zeroes over its eight bytes, most significant first. A
// negative number is passed as its two's complement, uint64(v). No two keys share a
// point.
//
// The cipher mixes bits here and protects nothing. It costs some 200 ns, thirty times
// [XXHash], and is for data that Vitess has placed; it panics in a process that runs
// in FIPS 140-only mode, where Go refuses DES. It allocates nothing and is safe for
// concurrent use.
func VitessHash(key uint64) ID {
	buf := desBuffers.Get().(*[des.BlockSize]byte)
	defer desBuffers.Put(buf)
	binary.BigEndian.PutUint64(buf[:], key)
	zeroDES().Encrypt(buf[:], buf[:])
	return ID(binary.BigEndian.Uint64(buf[:]))
}

// zeroDES is made on first use and not at start: in FIPS 140-only mode it fails.
var zeroDES = sync.OnceValue(func() cipher.Block {
	block, err := des.NewCipher(make([]byte, des.BlockSize))
	if err != nil {
		panic("shard: VitessHash: " + err.Error())
	}
	return block
})

// desBuffers keeps the block off the heap of each call, to which the call through an
// interface would send it.
var desBuffers = sync.Pool{New: func() any { return new([des.BlockSize]byte) }}
