/* Every width of lanes that is compiled, for the instruction set of this inclusion. */
#define LANES 64
#include "lanes.h"
#include "samples.h"
#if HS_MAX_LANES >= 128
#define LANES 128
#include "lanes.h"
#include "samples.h"
#endif
#if HS_MAX_LANES >= 256
#define LANES 256
#include "lanes.h"
#include "samples.h"
#endif
#if HS_MAX_LANES >= 512
#define LANES 512
#include "lanes.h"
#include "samples.h"
#endif
