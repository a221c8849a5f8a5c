// All native kernels, as one unit to compile.
#include "draw.h"
#include "gru.h"
#include "plain.h"
