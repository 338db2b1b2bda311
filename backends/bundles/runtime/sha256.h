// SHA-256, after FIPS 180-4, of files and of bytes; and HMAC with it, after RFC 2104.
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <string.h>

class Sha256 {
 public:
  // Writes the sum of what is left of `file` as 64 hexadecimal digits and an end of text. Returns false if it cannot be read.
  static bool of_file(FILE* file, char* digits) {
    Sha256 sum;
    unsigned char buffer[1 << 14];
    size_t count;
    while ((count = fread(buffer, 1, sizeof buffer, file)) > 0) sum.add(buffer, count);
    sum.pad();
    for (int i = 0; i < 8; ++i) snprintf(digits + 8 * i, 9, "%08x", static_cast<unsigned>(sum.state_[i]));
    return !ferror(file);
  }

  static constexpr size_t kBytes = 32, kBlock = 64;

  // Writes the sum of all that was added.
  void finish(unsigned char* digest) {
    pad();
    for (size_t i = 0; i < kBytes; ++i) digest[i] = static_cast<unsigned char>(state_[i / 4] >> (24 - i % 4 * 8));
  }

  void add(const unsigned char* data, size_t count) {
    length_ += count;
    while (count > 0) {
      size_t part = sizeof block_ - used_;
      if (part > count) part = count;
      memcpy(block_ + used_, data, part);
      used_ += part, data += part, count -= part;
      if (used_ == sizeof block_) mix();
    }
  }

 private:
  void pad() {
    const uint64_t bits = length_ * 8;
    const unsigned char one = 0x80, zero = 0;
    add(&one, 1);
    while (used_ != sizeof block_ - 8) add(&zero, 1);
    unsigned char end[8];
    for (int i = 0; i < 8; ++i) end[i] = static_cast<unsigned char>(bits >> (56 - 8 * i));
    add(end, sizeof end);
  }

  static uint32_t turned(uint32_t value, int by) { return value >> by | value << (32 - by); }

  void mix() {
    static const uint32_t kRound[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
    uint32_t words[64];
    for (int i = 0; i < 16; ++i) {
      const unsigned char* at = block_ + 4 * i;
      words[i] = static_cast<uint32_t>(at[0]) << 24 | static_cast<uint32_t>(at[1]) << 16 |
                 static_cast<uint32_t>(at[2]) << 8 | at[3];
    }
    for (int i = 16; i < 64; ++i) {
      const uint32_t a = words[i - 15], b = words[i - 2];
      words[i] = words[i - 16] + (turned(a, 7) ^ turned(a, 18) ^ a >> 3) + words[i - 7] +
                 (turned(b, 17) ^ turned(b, 19) ^ b >> 10);
    }
    uint32_t v[8];
    memcpy(v, state_, sizeof v);
    for (int i = 0; i < 64; ++i) {
      const uint32_t sum1 = turned(v[4], 6) ^ turned(v[4], 11) ^ turned(v[4], 25);
      const uint32_t first = v[7] + sum1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + kRound[i] + words[i];
      const uint32_t sum0 = turned(v[0], 2) ^ turned(v[0], 13) ^ turned(v[0], 22);
      const uint32_t second = sum0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
      memmove(v + 1, v, 7 * sizeof *v);
      v[4] += first;
      v[0] = first + second;
    }
    for (int i = 0; i < 8; ++i) state_[i] += v[i];
    used_ = 0;
  }

  uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  unsigned char block_[64];
  size_t used_ = 0;
  uint64_t length_ = 0;
};

class Hmac {
 public:
  Hmac(const unsigned char* key, size_t size) {
    unsigned char block[Sha256::kBlock] = {0};
    if (size > sizeof block) {
      Sha256 sum;
      sum.add(key, size);
      sum.finish(block);
    } else {
      memcpy(block, key, size);
    }
    for (unsigned char& byte : block) byte ^= 0x36;
    inner_.add(block, sizeof block);
    for (unsigned char& byte : block) byte ^= 0x36 ^ 0x5c;
    outer_.add(block, sizeof block);
  }

  void add(const void* data, size_t count) { inner_.add(static_cast<const unsigned char*>(data), count); }

  void finish(unsigned char* digest) {
    inner_.finish(digest);
    outer_.add(digest, Sha256::kBytes);
    outer_.finish(digest);
  }

 private:
  Sha256 inner_, outer_;
};

// Whether two runs of bytes are equal, in a time that does not tell where they differ.
inline bool same_bytes(const unsigned char* one, const unsigned char* other, size_t size) {
  volatile unsigned char different = 0;
  for (size_t i = 0; i < size; ++i) different = static_cast<unsigned char>(different | (one[i] ^ other[i]));
  return different == 0;
}
