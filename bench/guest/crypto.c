// SPDX-License-Identifier: Apache-2.0
// OpenSSL's library on fixed input: SHA-256, AES-256-CBC, AES-128-GCM, and RSA signatures with the key in
// data/rsa.pem (made once, when the image is built). The library picks its code by CPUID as it does in any program.
#include "bench.h"
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>

enum { CHUNK = 64 << 10 };
static unsigned char text[CHUNK], out[CHUNK + 64];

static uint64_t first8(const unsigned char *p) {
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static uint64_t digest(uint64_t work) {
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bench_need(ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL), "SHA-256");
    bench_fill_text((char *)text, CHUNK, 6);
    for (uint64_t i = 0; i < work; i++) {
        bench_need(EVP_DigestUpdate(ctx, text, CHUNK), "SHA-256");
        text[i % CHUNK]++;
    }
    bench_need(EVP_DigestFinal_ex(ctx, out, NULL), "SHA-256");
    EVP_MD_CTX_free(ctx);
    return first8(out);
}

static uint64_t encrypt(uint64_t work, const EVP_CIPHER *cipher) {
    static const unsigned char key[32] = "the benchmark's key, 256 bits it", iv[16] = "start";
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint64_t sum = 0;
    int len;
    bench_need(ctx && EVP_EncryptInit_ex(ctx, cipher, NULL, key, iv), "cipher");
    bench_fill_text((char *)text, CHUNK, 6);
    for (uint64_t i = 0; i < work; i++) {
        bench_need(EVP_EncryptUpdate(ctx, out, &len, text, CHUNK), "cipher");
        sum = bench_mix(sum, first8(out + len - 16));
    }
    EVP_CIPHER_CTX_free(ctx);
    return sum;
}
static uint64_t aes_cbc(uint64_t work) {
    return encrypt(work, EVP_aes_256_cbc());
}
static uint64_t aes_gcm(uint64_t work) {
    return encrypt(work, EVP_aes_128_gcm());
}

static uint64_t rsa_sign(uint64_t work) {
    FILE *file = fopen("data/rsa.pem", "r");
    bench_need(file != NULL, "data/rsa.pem");
    EVP_PKEY *key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
    fclose(file);
    bench_need(key != NULL, "key in data/rsa.pem");
    uint64_t sum = 0;
    for (uint64_t i = 0; i < work; i++) {
        EVP_MD_CTX *ctx = EVP_MD_CTX_new();
        unsigned char signature[512];
        size_t len = sizeof(signature);
        bench_need(ctx && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) &&
                       EVP_DigestSign(ctx, signature, &len, (unsigned char *)&i, sizeof(i)),
                   "RSA signature");
        sum = bench_mix(sum, first8(signature + len - 8));
        EVP_MD_CTX_free(ctx);
    }
    EVP_PKEY_free(key);
    return sum;
}

const struct bench_case bench_crypto[] = {{"openssl-sha256", digest},
                                          {"openssl-aes-cbc", aes_cbc},
                                          {"openssl-aes-gcm", aes_gcm},
                                          {"openssl-rsa", rsa_sign},
                                          {0}};
