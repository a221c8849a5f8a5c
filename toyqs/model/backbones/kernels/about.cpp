// What a library says about itself: env.json of the runs that it trains has it.
#if defined(__AVX512F__)
#define INSTRUCTIONS " for AVX-512"
#elif defined(__AVX2__)
#define INSTRUCTIONS " for AVX2"
#else
#define INSTRUCTIONS " for any such processor"
#endif
extern "C" const char* toyqs_about() { return __VERSION__ INSTRUCTIONS; }
