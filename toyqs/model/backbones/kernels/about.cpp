// What a library says about itself: env.json of the runs that it trains has it.
#if defined(__clang__)
#define COMPILER __VERSION__
#else
#define COMPILER "GCC " __VERSION__
#endif
#if defined(__AVX512F__)
#define INSTRUCTIONS "AVX-512"
#elif defined(__AVX2__)
#define INSTRUCTIONS "AVX2"
#elif defined(__ARM_NEON)
#define INSTRUCTIONS "NEON"
#else
#define INSTRUCTIONS "any such processor"
#endif

extern "C" const char* toyqs_about() { return COMPILER " for " INSTRUCTIONS; }
