// Package tokenizer owns the step between text and token ids: byte-level BPE
// with GPT-2's split pattern, trained, read and written in the way of Hugging
// Face's tokenizers library, so that both give the same merges and ids.
//
// Text becomes ids in three steps:
//
//	"a dragon's egg"  split      "a" " dragon" "'s" " egg"
//	                  bytes      each word as bytes, each byte one token
//	                  merges     the earliest merge first, until none applies
//
// Every byte has a token, so any text can be encoded, valid UTF-8 or not, and
// Decode gives it back byte for byte.
//
// In vocabularies a byte is written as one printable character (a space is Ġ,
// see bytes.go). Encode treats the names of special tokens in a text as plain
// text, since what a story says must never end it; EncodeSpecial recognises
// them.
package tokenizer
