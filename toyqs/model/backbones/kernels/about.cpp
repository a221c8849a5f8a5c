// What a library says about itself: env.json of the runs that it trains has it.
extern "C" const char* toyqs_about() { return __VERSION__; }
